"""`fccl.flower.FCCL` against formulas by hand and against Flower's own FedAvg."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.app.message import make_message
from flwr.app.metadata import Metadata
from flwr.serverapp.exception import InconsistentMessageReplies
from flwr.serverapp.strategy import FedAvg
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.aggregation.rules import aggregation
from fccl.contribution.reported import ContributionRule
from fccl.flower import FCCL
from tests.examples import few

START = ArrayRecord({"b": Array(np.zeros(2, np.float32)), "a": Array(np.zeros((2, 2), np.float32))})


class ThreeNodes:
    """What `configure_train` asks of a grid."""

    def get_node_ids(self) -> list[int]:
        return [1, 2, 3]


@pytest.fixture(autouse=True)
def _a_task_of_flower(monkeypatch: pytest.MonkeyPatch) -> None:
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def strategy(**options: Any) -> FCCL:
    """One that has sent its first round."""
    own = FCCL(fraction_evaluate=1.0, min_train_nodes=3, **options)
    messages = list(own.configure_train(1, START, ConfigRecord(), ThreeNodes()))  # type: ignore[arg-type]
    assert [message.content["arrays"] for message in messages] == [START] * 3
    return own


def reply(node: int, number: float, examples: Any = 10, loss: Any = 1.0, arrays: Any = None, **more: Any) -> Message:
    content = RecordDict(
        {
            "arrays": arrays or filled(number),
            "metrics": MetricRecord({"num-examples": examples, "train_loss": loss} | more),
        }
    )
    return make_message(about(node), content)


def about(node: int) -> Metadata:
    return Metadata(1, f"{node}", node, 0, "asked", "1", 0.0, 60.0, "train")


def filled(number: float, dtype: Any = np.float32) -> ArrayRecord:
    return ArrayRecord({"b": Array(np.full(2, number, dtype)), "a": Array(np.full((2, 2), number, dtype))})


def numbers(arrays: ArrayRecord | None) -> list[float]:
    assert arrays is not None
    return [float(each) for array in arrays.values() for each in array.numpy().reshape(-1)]


@settings(max_examples=few(30), deadline=None)
@given(st.lists(st.tuples(st.integers(1, 500), st.floats(0.01, 20.0), st.floats(-5, 5)), min_size=1, max_size=6))
def test_weights_are_the_softmax_of_contributions_over_their_mean(told: list[tuple[int, float, float]]) -> None:
    own = strategy(rule=ContributionRule(source="data_loss_combined", temperature=0.7))
    replies = [reply(node, number, n, loss) for node, (n, loss, number) in enumerate(told)]
    arrays, _ = own.aggregate_train(1, replies)
    scores = [n / loss for n, loss, _ in told]
    shares = [math.exp(score / (sum(scores) / len(scores)) / 0.7) for score in scores]
    weights = [share / sum(shares) for share in shares]
    assert own.weights == pytest.approx(weights, rel=1e-9)
    mean = sum(weight * number for weight, (_, _, number) in zip(weights, told, strict=True))
    assert numbers(arrays) == pytest.approx([mean] * 6, rel=1e-6, abs=1e-6)


def test_weights_by_samples_are_flowers_own_fedavg() -> None:
    replies = [reply(1, 0.1, 30, 2.0), reply(2, -0.7, 7, 0.4), reply(3, 2.5, 100, 1.1)]
    own = strategy(rule=ContributionRule(mode="fedavg"))
    arrays, metrics = own.aggregate_train(1, replies)
    theirs, their_metrics = FedAvg(fraction_evaluate=1.0).aggregate_train(1, replies)
    assert numbers(arrays) == pytest.approx(numbers(theirs), rel=1e-6)
    assert metrics == their_metrics


def test_the_order_of_the_replies_changes_no_bit() -> None:
    replies = [reply(node, 0.1 * node, 10 + node, 1.0 + node) for node in (1, 2, 3)]
    results = [strategy().aggregate_train(1, each)[0] for each in (replies, replies[::-1])]
    assert numbers(results[0]) == numbers(results[1])


BAD = [
    (reply(2, math.nan), "NaN"),
    (reply(2, 1.0, arrays=ArrayRecord({"a": Array(np.zeros((2, 2), np.float32))})), "another set of arrays"),
    (reply(2, 1.0, arrays=ArrayRecord({"b": Array(np.zeros(3, np.float32)), "a": START["a"]})), "other shapes"),
    (reply(2, 1.0, examples=0), "no examples"),
    (reply(2, 1.0, examples=-5), "fewer than none"),
    (reply(2, 1.0, loss=math.inf), "no loss"),
    (reply(2, 1.0, loss=[1.0, 2.0]), "a list"),
    (make_message(about(2), RecordDict({"metrics": MetricRecord({"num-examples": 1})})), "no arrays"),
    (make_message(about(2), RecordDict()), "nothing"),
    (make_message(about(2), None, Error(0, "gone")), "an error"),
]


@pytest.mark.parametrize(("bad", "what"), BAD, ids=[what for _, what in BAD])
def test_a_reply_that_cannot_be_used_is_left_out(bad: Message, what: str) -> None:
    own = strategy(rule=ContributionRule(source="loss_inverse"))
    arrays, _ = own.aggregate_train(1, [reply(1, 1.0), bad, reply(3, 3.0)])
    assert numbers(arrays) == pytest.approx([2.0] * 6)


def test_the_same_reply_ends_flowers_own_round() -> None:
    """What the one before is held against."""
    with pytest.raises(InconsistentMessageReplies):
        FedAvg(fraction_evaluate=1.0).aggregate_train(1, [reply(1, 1.0), BAD[1][0]])


def test_a_round_without_a_usable_reply_leaves_the_model_as_it_is() -> None:
    assert strategy().aggregate_train(1, [BAD[0][0]]) == (None, None)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int64])
def test_arrays_keep_their_types_and_their_order(dtype: Any) -> None:
    own, start = FCCL(fraction_evaluate=1.0, min_train_nodes=3), filled(0, dtype)
    list(own.configure_train(1, start, ConfigRecord(), ThreeNodes()))  # type: ignore[arg-type]
    arrays, _ = own.aggregate_train(1, [reply(1, 0, arrays=filled(1, dtype)), reply(2, 0, arrays=filled(3, dtype))])
    assert arrays is not None
    assert list(arrays) == ["b", "a"]
    assert {array.dtype for array in arrays.values()} == {np.dtype(dtype).name}
    assert numbers(arrays) == [2.0] * 6


def test_any_aggregation_of_ours_takes_the_place_of_the_mean() -> None:
    own = strategy(aggregation=aggregation("median"))
    arrays, _ = own.aggregate_train(1, [reply(1, 1.0), reply(2, 2.0), reply(3, 1e6)])
    assert numbers(arrays) == [2.0] * 6


def test_a_server_optimiser_remembers_over_rounds() -> None:
    """FedAvgM at momentum 0.5: the second round's step is the first one's half and its own (Hsu et al. 2019)."""
    rule = aggregation("fedavgm", server_lr=1.0, server_momentum=0.5)
    own = strategy(aggregation=rule)
    first, _ = own.aggregate_train(1, [reply(1, 1.0), reply(2, 1.0)])
    assert first is not None
    list(own.configure_train(2, first, ConfigRecord(), ThreeNodes()))  # type: ignore[arg-type]
    second, _ = own.aggregate_train(2, [reply(1, 2.0), reply(2, 2.0)])
    assert (numbers(first), numbers(second)) == ([1.0] * 6, [2.5] * 6)


def test_a_loss_is_needed_only_where_the_weights_read_it() -> None:
    without = make_message(about(1), RecordDict({"a": filled(1.0), "m": MetricRecord({"num-examples": 4})}))
    assert numbers(strategy().aggregate_train(1, [without])[0]) == [1.0] * 6
    by_loss = strategy(rule=ContributionRule(source="loss_inverse"))
    assert by_loss.aggregate_train(1, [without]) == (None, None)
