"""Runs that were made with the data in a folder: to replay, check or evaluate them takes that very data."""

from __future__ import annotations

from pathlib import Path

from fccl.data.prepare import manifest_matches
from fccl.display.words import plural
from fccl.paths import DataPaths, LogPaths
from fccl.records.run import RunInfo
from fccl.specs import DataSpec
from fccl.storage.files import sha256_of, storage_errors
from fccl.storage.reading import read_value

_NAMED = 3  # runs in one line


def losing_line(log_dir: Path, data: DataPaths, spec: DataSpec) -> str:
    """A line on the runs in a log folder whose data would be replaced by that of `spec`; empty where there are none."""
    runs = runs_of_data(log_dir, data)
    if not runs or manifest_matches(data, spec):
        return ""
    rest = f" and {plural(len(runs) - _NAMED, 'other')}" if len(runs) > _NAMED else ""
    return (
        f"The data in {data.root}/ is that of run {', '.join(runs[:_NAMED])}{rest} in {log_dir}/: `fccl replay`, "
        "`forget` and `evaluate` of it need `fccl prepare` with its settings again, or --data-dir a copy."
    )


def runs_of_data(log_dir: Path, data: DataPaths) -> list[str]:
    """The ids of the runs in a log folder that were made with the data that is there: its own first."""
    here = LogPaths(log_dir)
    if not data.manifest.is_file():
        return []
    with storage_errors(here.archive, "read"):
        earlier = sorted(here.archive.iterdir(), reverse=True) if here.archive.is_dir() else []
    infos = (read_value(LogPaths(root).run, RunInfo) for root in (log_dir, *earlier))
    digest = sha256_of(data.manifest)
    return [info.run_id for info in infos if info is not None and info.data_sha256 == digest]
