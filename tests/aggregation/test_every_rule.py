"""Every rule passes the suite that authors of their own rules run."""

import pytest

from fccl.aggregation.own import OwnAggregation
from fccl.aggregation.rules import RULES, aggregation
from fccl.testing.aggregation import AggregationContract

OPTIMISERS = ("fedadagrad", "fedyogi", "fedadam")  # whose first step is no mean
ROBUST = {
    "median": 4,
    "trimmed_mean": 1,
    "krum": 1,
    "multi_krum": 1,
    "geometric_median": 4,
    "norm_clipping": 4,
}


def suite(name, **about):
    class Suite(AggregationContract):
        keeps_equal_updates = name not in OPTIMISERS
        withstands = ROBUST.get(name, 0)

        def rule(self):
            return aggregation(name)

    Suite.__name__ = Suite.__qualname__ = f"Test_{name}"
    return Suite


for _name in RULES:
    globals()[f"Test_{_name}"] = suite(_name)


class TestARuleOfOnesOwn(AggregationContract):
    def rule(self):
        return OwnAggregation("package.module:Class", aggregation("fedavgm"))


class NotAMean(AggregationContract):
    """A suite that claims too much of FedAvg."""

    withstands = 1

    def rule(self):
        return aggregation("fedavg")


def test_the_suite_finds_a_rule_that_withstands_nothing():
    with pytest.raises(AssertionError):
        NotAMean().test_bad_updates_do_not_take_the_adapter_away(1e4)


def test_every_robust_rule_is_tried_with_bad_updates():
    assert set(ROBUST) <= set(RULES)
