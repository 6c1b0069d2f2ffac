"""Rules that are classes of one's own: named by the command itself, and the same file when a run goes on."""

from __future__ import annotations

from collections.abc import Mapping

from fccl.config import Settings
from fccl.display.plain_text import printable
from fccl.errors import SettingsError
from fccl.registry import is_own, source_sha256

CHOOSING = ("contribution_source", "aggregation")  # the settings that may name a class


def named(settings: Settings) -> dict[str, str]:
    """The classes that the settings name, by setting."""
    chosen = {name: str(getattr(settings, name)) for name in CHOOSING}
    return {name: value for name, value in chosen.items() if is_own(value)}


def own_rules(settings: Settings) -> dict[str, str]:
    """The classes that the settings name, each with the hash of its file. Raises `SettingsError`."""
    return {path: source_sha256(path) for path in named(settings).values()}


def require_named(recorded: Mapping[str, str], now: Settings) -> None:
    """Raises `SettingsError` when the recorded settings name classes that those of this command do not.

    A record may be anybody's, and to import a class is to run it.
    """
    found = {name: recorded.get(name, "") for name in CHOOSING}
    lacking = {name: path for name, path in found.items() if is_own(path) and getattr(now, name) != path}
    if lacking:
        needed = " and ".join(f"the class {printable(path)} as its {name.upper()}" for name, path in lacking.items())
        options = " ".join(f"--{name.replace('_', '-')} {printable(path)}" for name, path in lacking.items())
        it = "it" if len(lacking) == 1 else "them"
        raise SettingsError(f"the run to resume needs {needed}", hint=f"name {it} again if you trust {it}: {options}")


def require_unchanged(recorded: Mapping[str, str], settings: Settings) -> None:
    """Raises `SettingsError` when the file of a class is not the one that the run was started with."""
    for path, sha256 in own_rules(settings).items():
        if recorded.get(path) != sha256:
            raise SettingsError(
                f"the file of {path} was changed since the run began",
                hint="put it back as it was, or start a new run: a resumed run ends as if it had never stopped",
            )
