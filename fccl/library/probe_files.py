"""The files that a probe has left, by kind: a run under the same settings writes files of the same lengths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from fccl.federation.workload import FileSizes
from fccl.paths import LogPaths
from fccl.records.forecast import TrafficForecast
from fccl.records.run import RoundRecord
from fccl.specs import PHASES


def file_sizes(logs: LogPaths, records: Sequence[RoundRecord]) -> FileSizes:
    """The length of one file of each kind. `logs` is the folder of a finished run that kept all of its rounds."""
    kept = logs.kept_round(records[-1].round)
    texts = (logs.run, logs.state, logs.state_sft, logs.manifest, logs.evaluation_json, logs.evaluation_markdown)
    return FileSizes(
        adapter=_length(logs.global_final),
        update=_longest(kept.root.glob("update_*")),
        client=_longest(logs.client_adapter(0, "sft").parent.glob("*")),
        peft=sum(map(_length, logs.adapter.glob("*"))),
        control=_longest(kept.root.glob("control_*")),
        server=_length(kept.server_state),
        starts_from=logs.start.is_file() and logs.global_sft.is_file(),
        told=_length(kept.inputs),
        lines=(_length(logs.progress) + _length(logs.client_metrics)) // len(records),
        once=sum(map(_length, [*texts, *logs.root.glob("status_*.json")])),
    )


def traffic_of(logs: LogPaths, records: Sequence[RoundRecord]) -> tuple[TrafficForecast, ...]:
    """The bytes that one client receives and sends in a round of each phase: its kept adapters, and under SCAFFOLD a
    control variate each way. A client gets the reference of the VA rounds once.
    """
    last = {record.phase: logs.kept_round(record.round) for record in records}
    found = []
    for phase in PHASES:
        if phase in last:
            control = _longest(last[phase].root.glob("control_*"))
            whole = _length(last[phase].adapter)
            up = _longest(last[phase].root.glob("update_*")) or whole  # of noised sums no single update is kept
            once = _length(logs.reference) if phase == "va" else 0
            down = whole + control
            found.append(TrafficForecast(phase=phase, down=down, up=up + control, once=once))
    return tuple(found)


def _longest(files: Iterable[Path]) -> int:
    return max(map(_length, files), default=0)


def _length(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0
