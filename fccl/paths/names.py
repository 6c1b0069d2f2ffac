"""The parts that all names share."""

from __future__ import annotations

import hashlib
from pathlib import Path

ADAPTER = ".safetensors"  # how the names of adapters' files end
CARD = ".md"  # and that of a model card
CODED = ".coded"  # and of adapters as the change of another one
_LONGEST_NAME, _LONGEST_PATH, _DEEPEST = (
    255,
    4096,
    256,
)  # bytes, bytes, names; what Linux takes at most, and Python's recursion in mkdir


def of_earlier_versions(adapter: Path) -> Path:
    """The file in which an earlier version, or an original peer, has the adapter that belongs in this one."""
    return adapter.with_suffix(".pt")


def run_digits(run_id: str) -> str:
    """The name of a run in names of files: 16 hex digits."""
    return hashlib.sha256(run_id.encode()).hexdigest()[:16]


def is_usable(path: str | Path) -> bool:
    """Whether a file could have this path and a record could hold it.

    What meets another fails in a way of its own each time.
    """
    try:
        encoded = str(path).encode()
    except UnicodeEncodeError:  # bytes that are not UTF-8
        return False
    names = encoded.split(b"/")
    return (
        b"\0" not in encoded
        and len(encoded) < _LONGEST_PATH
        and len(names) <= _DEEPEST
        and max(map(len, names)) <= _LONGEST_NAME
    )
