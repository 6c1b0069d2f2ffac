"""The summary of one round of a trial: what is kept of its record, and who should have been heard and was not."""

from __future__ import annotations

from fccl.compare.reference import Agreement
from fccl.compare.values import RoundSummary
from fccl.federation.arrived import file_length
from fccl.federation.state import RoundResult
from fccl.records.run import RoundRecord

LEFT_OUT = "left out of this trial"


def without(record: RoundRecord) -> list[str]:
    """The clients that were excluded from a round and should not have been."""
    return [
        f"round {record.round + 1} without client {out.client_id}: {out.reason}"
        for out in record.excluded
        if out.reason != LEFT_OUT
    ]


def summary(result: RoundResult, before: RoundResult | None, agreement: Agreement | None) -> RoundSummary:
    """The summary of a round that was validated, from it and the one before it."""
    record = result.record
    if record.validation is None:
        raise ValueError("a round that was not validated has no summary")
    heard, task = result.inputs.arrived, result.inputs.task
    return RoundSummary(
        clients=record.clients,
        weights=result.counted,
        loss=record.validation.loss,
        tokens=sum(update.report.tokens for update in heard),
        bytes=_bytes(result, before) + (0 if task.corrections is None else len(heard) * file_length(task.adapter)),
        agreement=agreement.weights if agreement else None,
        halves=agreement.halves if agreement else None,
    )


def _bytes(result: RoundResult, before: RoundResult | None) -> int:
    """Of adapters to the clients that answered, and from them."""
    sent, clients = result.record.sent, [update.client_id for update in result.inputs.arrived]
    if sent is None:
        return 0
    had = None if before is None else [update.client_id for update in before.inputs.arrived]
    return sent.up + sent.down_to(clients, had)
