"""Files between `fccl flower run` and its ServerApp: what the run was asked for, and what became of it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from fccl.config import Settings
from fccl.errors import FederationError
from fccl.specs import Value
from fccl.storage.files import write_text
from fccl.storage.reading import parse, read_bounded

_MOST_BYTES = 1_048_576
_LOOK_S = 0.5  # between two looks for the outcome


class FlowerRequest(Value):
    """A run as it was asked for: the folder, the settings of its environment, and the arguments that were given."""

    folder: str
    environment: dict[str, str]
    given: dict[str, JsonValue]
    nodes: str = ""  # the folder of the sites' node keys; none: nodes are believed
    resume: bool = False
    new: bool = False
    redo_va: bool = False

    @classmethod
    def here(cls, given: Mapping[str, Any], **options: bool | str) -> FlowerRequest:
        """The request of this process."""
        settings = {name.upper() for name in Settings.model_fields}
        environment = {name: value for name, value in os.environ.items() if name.upper() in settings}
        return cls.model_validate({"folder": os.getcwd(), "environment": environment, "given": dict(given), **options})

    def enter(self) -> None:
        """Make the folder and the settings of the environment this process's own."""
        os.chdir(self.folder)
        for name in [name for name in os.environ if name.lower() in Settings.model_fields]:
            del os.environ[name]
        os.environ.update(self.environment)


class FlowerOutcome(Value):
    """A run that a ServerApp has begun, and in the end its exit status, or its error in words."""

    pid: int = 0  # of a ServerApp that is at work; 0 at the end
    status: int = 0
    error: str = ""
    hint: str = ""


def write_value(path: Path, value: Value) -> None:
    """Write one of the two. Raises `StorageError`."""
    write_text(path, value.model_dump_json() + "\n")


def read_request(path: Path) -> FlowerRequest:
    """Raises `UpdateRejected` when it is not there."""
    return parse(read_bounded(path, _MOST_BYTES), FlowerRequest, path.name)


def outcome_file(request: Path) -> Path:
    """Where the outcome of a request is written."""
    return request.with_name("outcome.json")


def read_outcome(request: Path) -> FlowerOutcome | None:
    """The last word of the ServerApp, if it has begun."""
    path = outcome_file(request)
    return parse(read_bounded(path, _MOST_BYTES), FlowerOutcome, path.name) if path.exists() else None


def awaited_outcome(request: Path) -> FlowerOutcome:
    """The outcome of a ServerApp that may still be at work, though its SuperLink shows no more of it.

    Raises `FederationError` when it has ended without a word.
    """
    while (found := read_outcome(request)) is not None and found.pid:
        if not _lives(found.pid) and read_outcome(request) == found:
            break
        time.sleep(_LOOK_S)
    if found is None:
        raise FederationError(
            "the ServerApp has not begun the run",
            hint="the SuperLink's log says why. Call this on its host, as the user that runs it: the ServerApp reads "
            "files of this command",
        )
    if found.pid:
        raise FederationError(
            "the ServerApp has ended before the run was done",
            hint="the SuperLink's log says why; the same command goes on from the last complete round",
        )
    return found


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
