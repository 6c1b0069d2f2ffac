"""`FCCL`: contribution weights for people who have a Flower app already. Their ClientApp stays as it is.

    from fccl.flower import FCCL

    strategy = FCCL(rule=ContributionRule(source="data_loss_combined"))
    result = strategy.start(grid=grid, initial_arrays=arrays, num_rounds=3)

It is Flower's own FedAvg but for the weights and the aggregation. A whole federation of FCCL over Flower is
`fccl flower run` (docs/flower.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from logging import WARNING
from typing import Any

from fccl.extras import require_extra

require_extra("flower", "fccl.flower")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict  # noqa: E402
from flwr.serverapp import Grid  # noqa: E402
from flwr.serverapp.strategy import FedAvg as FlowersFedAvg  # noqa: E402
from flwr.supercore import log  # noqa: E402

from fccl.adapters.adapter import Adapter  # noqa: E402
from fccl.aggregation.fedavg import FedAvg  # noqa: E402
from fccl.aggregation.protocol import Aggregation, Parts  # noqa: E402
from fccl.aggregation.state import ServerState  # noqa: E402
from fccl.contribution.reported import ContributionRule  # noqa: E402
from fccl.display.plain_text import printable  # noqa: E402
from fccl.errors import FcclError, UpdateRejected  # noqa: E402
from fccl.records.run import Contribution  # noqa: E402

__all__ = ["FCCL"]

_NEED_LOSS = ("loss_inverse", "data_loss_combined")


class FCCL(FlowersFedAvg):
    """Flower's FedAvg with FCCL's contribution weights, and with any aggregation of ours.

    A client's weight follows from what its MetricRecord says under `weighted_by_key` (examples) and `loss_key` (its
    average loss). A reply with other arrays, or with numbers that are none, is left out of the round with a warning: in
    Flower's own FedAvg it ends the run. Arrays are summed in float64 in the order of the nodes' numbers and keep their
    types. A round without a usable reply leaves the model as it is.

    >>> strategy = FCCL(rule=ContributionRule(source="loss_inverse"), loss_key="train_loss", min_train_nodes=3)
    >>> strategy.rule.source
    'loss_inverse'
    """

    def __init__(
        self,
        *arguments: Any,
        rule: ContributionRule | None = None,
        aggregation: Aggregation | None = None,
        loss_key: str = "train_loss",
        **others: Any,
    ) -> None:
        super().__init__(*arguments, **others)
        self.rule, self.aggregation, self.loss_key = rule or ContributionRule(), aggregation or FedAvg(), loss_key
        self.weights: tuple[float, ...] = ()  # of the last round, in the order of the nodes' numbers
        self._before, self._state = ArrayRecord(), ServerState()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As Flower's. The arrays are what replies are held against."""
        if server_round == 1 or not self._before:
            self._state = self.aggregation.initial(_adapter(arrays))
        self._before = arrays
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The next arrays, weighed by contribution, and Flower's own aggregate of the metrics."""
        sound, _ = self._check_and_log_replies(replies, is_train=True, validate=False)
        used = [found for reply in sorted(sound, key=_node) if (found := self._usable(reply)) is not None]
        if not used:
            return None, None
        contents, contributions, updates = zip(*used, strict=True)
        self.weights = self.rule.weights(contributions)
        parts = Parts(self.weights, updates)
        done = self.aggregation.aggregate(_adapter(self._before), parts, self._state)
        self._state = done.state
        metrics = self.train_metrics_aggr_fn(list(contents), self.weighted_by_key)
        return _arrays(done.adapter, self._before), metrics

    def _usable(self, reply: Message) -> tuple[RecordDict, Contribution, Adapter] | None:
        """The content, contribution and update of a reply; None, with a warning, where it cannot be used."""
        try:
            metrics, arrays = _only(reply.content.metric_records), _only(reply.content.array_records)
            update = _adapter(arrays)
            _adapter(self._before).require_same_form(update)
            return reply.content, self._contribution(metrics), update
        except (FcclError, TypeError, ValueError) as error:
            why = printable(str(error).splitlines()[0], 300)
            log(WARNING, "node %s is left out of this round: %s", reply.metadata.src_node_id, why)
            return None

    def _contribution(self, metrics: MetricRecord) -> Contribution:
        """Raises `UpdateRejected` when a number is missing, `ValueError` when it is none."""
        needed = self.rule.mode == "cognitive" and self.rule.source in _NEED_LOSS
        for key in (self.weighted_by_key, *((self.loss_key,) if needed else ())):
            if key not in metrics:
                raise UpdateRejected(f"its metrics have no {key!r}, which the weights need")
        loss = metrics.get(self.loss_key, 0.0)
        return Contribution.model_validate(
            {"avg_loss": float(loss), "num_samples": metrics[self.weighted_by_key], "seconds": 0.0}  # type: ignore[arg-type]
        )


def _node(reply: Message) -> int:
    return reply.metadata.src_node_id


def _only(records: Any) -> Any:
    """The one record of a kind. Raises `UpdateRejected`."""
    if len(records) != 1:
        raise UpdateRejected(f"it has {len(records)} records of a kind, not one")
    return next(iter(records.values()))


def _adapter(arrays: ArrayRecord) -> Adapter:
    """Arrays as float32 tensors by name. Raises `AdapterError` when a number is not finite."""
    return Adapter({name: torch.from_numpy(array.numpy()).float().contiguous() for name, array in arrays.items()})


def _arrays(adapter: Adapter, like: ArrayRecord) -> ArrayRecord:
    """The arrays of a model again, with the order and the types of `like`."""
    tensors = adapter.tensors
    return ArrayRecord({name: Array(_as(tensors[name].numpy(), array.dtype)) for name, array in like.items()})


def _as(numbers: np.ndarray, dtype: str) -> np.ndarray:
    """Numbers in another type; whole ones are rounded to the nearest."""
    return (np.rint(numbers) if np.issubdtype(np.dtype(dtype), np.integer) else numbers).astype(dtype)
