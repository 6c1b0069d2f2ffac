"""`AGGREGATION` and its settings, narrowed to the rule that a run uses."""

import pytest

from fccl.aggregation.rules import RULES, aggregation
from fccl.config import load_settings
from fccl.library.narrow import aggregation_rule

OPTIMISERS = ("fedavgm", "fedadagrad", "fedyogi", "fedadam")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def of(name, **settings):
    return aggregation_rule(load_settings({"aggregation": name, **settings}))


@pytest.mark.parametrize("name", RULES)
def test_what_nobody_sets_is_the_rules_own(name):
    assert of(name) == aggregation(name)


def test_momentum_that_nobody_sets_is_that_of_the_papers():
    assert [of(name).server_momentum for name in OPTIMISERS] == [0.9, 0.0, 0.9, 0.9]


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_what_is_set_is_used_whichever_optimiser_it_is(name, momentum):
    rule = of(name, server_momentum=str(momentum), server_lr="0.25")
    assert (rule.server_momentum, rule.server_lr) == (momentum, 0.25)
