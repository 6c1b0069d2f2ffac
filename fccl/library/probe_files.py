"""The files that a probe has left, by kind: a run under the same settings writes files of the same lengths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from fccl.federation.workload import FileSizes
from fccl.paths import CARD, LogPaths
from fccl.records.forecast import TrafficForecast
from fccl.records.run import RoundRecord
from fccl.specs import PHASES


def file_sizes(logs: LogPaths, records: Sequence[RoundRecord]) -> FileSizes:
    """The length of one file of each kind. `logs` is the folder of a finished run that kept all of its rounds."""
    kept = logs.kept_round(records[-1].round)
    exported = list(logs.adapter.glob("*"))
    cards = [file for file in exported if file.suffix == CARD]  # they say how many rounds there were
    texts = (logs.run, logs.state, logs.state_sft, logs.manifest, logs.evaluation_json, logs.evaluation_markdown)
    return FileSizes(
        adapter=_length(logs.global_final),
        update=_longest(kept.root.glob("update_*")),
        client=_longest(logs.client_adapter(0, "sft").parent.glob("*")),
        peft=sum(_length(file) for file in exported if file not in cards),
        control=_longest(kept.root.glob("control_*")),
        server=_length(kept.server_state),
        starts_from=logs.start.is_file() and logs.global_sft.is_file(),
        told=_length(kept.inputs),
        lines=(_length(logs.progress) + _length(logs.client_metrics)) // len(records),
        once=sum(map(_length, [*texts, *cards, *logs.root.glob("status_*.json")])),
    )


def traffic_of(logs: LogPaths, records: Sequence[RoundRecord]) -> tuple[TrafficForecast, ...]:
    """The bytes that one client receives and sends in a round of each phase: its adapters as they travel, and under
    SCAFFOLD a control variate each way. Once it gets the reference of the VA rounds, where adapters travel whole, or
    the factors around middle matrices.
    """
    last = {record.phase: record for record in records}
    return tuple(_traffic(logs, last[phase], records[0]) for phase in PHASES if phase in last)


def _traffic(logs: LogPaths, record: RoundRecord, first: RoundRecord) -> TrafficForecast:
    """By the last round of a phase, and the first of all."""
    kept = logs.kept_round(record.round)
    control, whole = _longest(kept.root.glob("control_*")), _length(kept.adapter)
    down = record.sent.down if record.sent else whole
    up = record.sent.up // len(record.arrived) if record.sent and record.arrived else whole + control
    if record.phase == "va":
        once = _length(logs.reference) if down == whole else 0  # else it is the adapter that a client holds
    else:
        once = max(0, (first.sent.down if first.sent else whole) - down)
    return TrafficForecast(phase=record.phase, down=down + control, up=up, once=once)


def _longest(files: Iterable[Path]) -> int:
    return max(map(_length, files), default=0)


def _length(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0
