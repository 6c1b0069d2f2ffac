"""Standing of the run in a log folder, for a command that is started again after it was stopped."""

from __future__ import annotations

from typing import Literal

from fccl.config import Settings
from fccl.federation.run_folder import RunFolder
from fccl.library.narrow import FREE_TO_CHANGE, ONCE, leaves_open
from fccl.paths import DataPaths
from fccl.records.run import RunEvent
from fccl.storage.files import sha256_of
from fccl.storage.reading import read_records


def standing(folder: RunFolder, settings: Settings) -> Literal["finished", "unfinished", "other"]:
    """The standing of the run in the log folder; `other` when there is none, or it has other settings or other data."""
    info, manifest = folder.info(), DataPaths(settings.data_dir).manifest
    if info is None or folder.state() is None:
        return "other"
    same = all(
        info.settings.get(name, ONCE.get(name)) == str(value) or leaves_open(name, value)
        for name, value in settings.model_dump().items()
        if name not in FREE_TO_CHANGE
    )
    if not same or (manifest.is_file() and sha256_of(manifest) != info.data_sha256):
        return "other"
    evaluated = not settings.evaluate or folder.paths.evaluation_json.is_file()
    return "finished" if evaluated and has_finished(folder) else "unfinished"


def has_finished(folder: RunFolder) -> bool:
    """Whether the run in the folder has all its rounds and its final adapter."""
    state = folder.state()
    events = list(read_records(folder.paths.progress, RunEvent, lambda row: row.get("event") != "round"))
    return state is not None and state.finished and bool(events) and events[-1].event == "finished"
