"""Folders that must not be each other, nor lie where another one keeps files of its own: refused before anything is
written.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fccl.config import Settings
from fccl.errors import SettingsError
from fccl.paths import ComparePaths, DataPaths, LogPaths
from fccl.storage.temporary import is_temporary

Place = tuple[str, Path]  # what a person calls it, where it is

# The first names below each folder that are its own: whatever else lies there is somebody else's business.
_DATA, _LOGS, _COMPARED = DataPaths(Path()), LogPaths(Path()), ComparePaths(Path())
_OWN = {
    "data_dir": frozenset(
        path.parts[0] for path in (_DATA.manifest, _DATA.picture, _DATA.clients, _DATA.server, _DATA.lock)
    ),
    "log_dir": frozenset(
        path.parts[0]
        for path in (
            *(*_LOGS.all_entries(), _LOGS.lock, _LOGS.archive, _LOGS.mlflow, _LOGS.compare.root),
            *(_LOGS.planned, _LOGS.private, _LOGS.audit),
        )
    )
    | {_LOGS.after("x").root.parts[0]}
    | {"wandb"},
    "out": frozenset(
        path.parts[0]
        for path in (
            *(_COMPARED.data("x"), _COMPARED.trials, _COMPARED.start("x"), _COMPARED.updates, _COMPARED.results),
            *(_COMPARED.table, _COMPARED.summary, _COMPARED.gaps, _COMPARED.page),
        )
    ),
}
_OWN_BEGINNINGS = {
    "log_dir": ("status_",),
    "exchange_dir": (
        *(
            "client_",
            "contrib_",
            "control_",
            "done_",
            "status_",
            "phase_",
            "global_",
            "task_",
            "reference_",
            "correction_",
        ),
        *("bell", "rejected", "orchestrator.lock"),
    ),
    "keys_dir": ("public.json", "server.key", "client_"),
    "state_dir": ("client_",),
    "out": ("weights_", "loss_"),
}
_PRIVATE = ("keys_dir", "state_dir")  # not where others can write
_HINT = "give each a folder of its own"


def require_apart(settings: Settings, used: Sequence[str], out: str = "", expected: Path | None = None) -> None:
    """Raises `SettingsError` when two of the folders that a command uses are one, or one lies among another's own
    files.

    `out` is where the command writes beside, a folder or a file; `expected` is the one place among the run's files that
    is meant for it.
    """
    places = {name: Path(value) for name in used if (value := getattr(settings, name))}
    if out and (expected is None or not same_place(Path(out), expected)):
        places["out"] = Path(out)
    names = list(places)
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            _require_two(first, places[first], second, places[second])


def same_place(first: Path, second: Path) -> bool:
    """Whether two paths lead to one place, however they are spelt: relative, through links, in another case where that
    is the same.
    """
    try:
        return os.path.samefile(first, second)
    except OSError:  # one is not there yet
        return _parts(first) == _parts(second)


def _require_two(first: str, one: Path, second: str, other: Path) -> None:
    if same_place(one, other):
        raise SettingsError(f"{_shown(first, one)} and {_shown(second, other)} are the same folder", hint=_HINT)
    for outer, where, inner, within in ((first, one, second, other), (second, other, first, one)):
        below = _below(within, where)
        if below is not None and (_is_own(outer, below) or (inner in _PRIVATE and outer == "exchange_dir")):
            raise SettingsError(f"{_shown(inner, within)} lies among the files of {_shown(outer, where)}", hint=_HINT)


def _below(inner: Path, outer: Path) -> str | None:
    """The first name on the way from `outer` to `inner`; None when `inner` does not lie there."""
    parts, above = _parts(inner), _parts(outer)
    if parts[: len(above)] == above and len(parts) > len(above):
        return parts[len(above)]
    real = Path(os.path.realpath(inner))
    for folder in real.parents:  # a folder that has two paths, for a mount
        try:
            if os.path.samefile(folder, outer):
                return real.relative_to(folder).parts[0]
        except OSError:
            continue
    return None


def _is_own(outer: str, name: str) -> bool:
    name = name.casefold()
    return name in _OWN.get(outer, ()) or name.startswith(_OWN_BEGINNINGS.get(outer, ())) or is_temporary(name)


def _parts(path: Path) -> tuple[str, ...]:
    """The names of the real path; in lower case where the file system makes no difference."""
    real = Path(os.path.realpath(path))
    return tuple(part.casefold() for part in real.parts) if _ignores_case(real) else real.parts


def _ignores_case(real: Path) -> bool:
    """Whether the nearest folder that exists is found in another case too."""
    for folder in (real, *real.parents):
        if folder.exists() and folder.name.swapcase() != folder.name:
            try:
                return os.path.samefile(folder, folder.with_name(folder.name.swapcase()))
            except OSError:
                return False
    return False


def _shown(name: str, path: Path) -> str:
    return f"the place to write to ({path})" if name == "out" else f"{name.upper()}={path}"
