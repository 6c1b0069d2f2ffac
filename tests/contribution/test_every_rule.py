"""Every weighing rule passes the suite that authors of their own rules run."""

import pytest
from hypothesis import given, settings

from fccl.contribution.own import OwnWeigher
from fccl.contribution.protocol import Weighing
from fccl.contribution.rules import MODES, RULES, weigher
from fccl.testing.quadratic import task, update
from fccl.testing.weigher import WeigherContract
from tests.contribution.strategies import quadratics, rounds
from tests.examples import few


def suite(mode, source):
    class Suite(WeigherContract):
        def rule(self, loss):
            return weigher(mode, source, {}, lambda: loss)

    Suite.__name__ = Suite.__qualname__ = f"Test_{mode}_{source}"
    return Suite


for _source in RULES:
    globals()[f"Test_cognitive_{_source}"] = suite("cognitive", _source)
for _mode in MODES:
    globals()[f"Test_{_mode}"] = suite(_mode, "verified")


class TestARuleOfOnesOwn(WeigherContract):
    def rule(self, loss):
        return OwnWeigher("package.module:Class", weigher("cognitive", "verified", {}, lambda: loss))


@pytest.mark.parametrize("source", [source for source, rule in RULES.items() if rule.takes_loss])
@settings(max_examples=few(30), deadline=None)
@given(quadratics, rounds())
def test_the_record_has_the_number_of_passes_over_the_examples(source, loss, given_updates):
    loss.asked.clear()
    found = weigher("cognitive", source, {}, lambda: loss).weigh(task(), given_updates)
    assert found.verification.passes == len(loss.asked) > 0


class ByPlace(WeigherContract):
    """A suite of a rule that looks at the order of the updates."""

    def rule(self, loss):
        return self

    def weigh(self, task, updates):
        return Weighing((1.0,) + (0.0,) * (len(updates) - 1), (0.0,) * len(updates))


def test_the_suite_finds_a_rule_that_looks_at_the_order():
    # Half of the examples leave the first update where it is, and a quick run has few.
    with pytest.raises(AssertionError):
        [ByPlace().test_reordering_the_updates_reorders_the_weights() for _ in range(5)]


def test_the_suite_finds_weights_that_are_none():
    class Half(ByPlace):
        def weigh(self, task, updates):
            return Weighing((0.5,) * len(updates), (0.0,) * len(updates))

    with pytest.raises(AssertionError):
        Half().test_weights_are_a_share_for_every_update_and_scores_are_numbers()
    assert Half().weigh(None, [update(0, (1, 2, 3))]).weights == (0.5,)
