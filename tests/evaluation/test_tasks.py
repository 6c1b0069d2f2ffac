"""Tasks of others: figures of single examples become estimates and paired differences."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.evaluation.bootstrap import Bootstrap
from fccl.evaluation.tasks import TaskMeasure, task_result
from tests.examples import few

BOOT = Bootstrap(200, 7)


def measured(values, weights=None, higher=True, perplexity=False):
    values = np.asarray(values, dtype=np.float64)
    weights = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
    return TaskMeasure("a task", "1.0", 0, "acc", higher, perplexity, values, weights)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
@settings(max_examples=few(30))
def test_a_share_is_the_mean_and_a_difference_is_paired(right):
    first, second = (measured([pair[index] for pair in right]) for index in (0, 1))
    found = task_result([first, second], BOOT)
    assert [each.value for each in found.estimates] == [np.mean(first.values), np.mean(second.values)]
    (difference,) = found.differences
    assert difference.estimate == BOOT.mean(second.values - first.values)
    assert difference.kind == "points"


def test_three_models_are_compared_neighbours_first_and_lower_may_be_better():
    models = [measured(np.full(8, loss), higher=False) for loss in (3.0, 2.0, 1.0)]
    found = task_result(models, BOOT)
    assert [each.estimate.value for each in found.differences] == [-1.0, -1.0, -2.0]
    assert {each.verdict for each in found.differences} == {"better"}
    assert {each.kind for each in found.differences} == {"number"}


def test_a_perplexity_is_the_exp_of_the_weighted_mean_and_its_difference_a_ratio():
    nats, words = np.array([4.0, 6.0, 8.0, 2.0, 1.0, 9.0]), np.array([2.0, 3.0, 4.0, 1.0, 1.0, 5.0])
    found = task_result([measured(nats, words, False, True), measured(nats - 0.5 * words, words, False, True)], BOOT)
    assert found.estimates[0].value == pytest.approx(np.exp(nats.sum() / words.sum()))
    (ratio,) = found.differences
    assert (ratio.kind, ratio.verdict) == ("ratio", "better")
    assert ratio.estimate.value == pytest.approx(np.exp(-0.5))


def test_models_that_answered_other_examples_are_not_compared():
    with pytest.raises(ValueError, match="a task: the models have not answered the same examples"):
        task_result([measured([1.0, 0.0]), measured([1.0])], BOOT)
