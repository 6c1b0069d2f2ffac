"""Templates in `fccl/assets/`: text with blanks that begin with @. The dollar sign belongs to Compose and to shells."""

from __future__ import annotations

import string
from collections.abc import Mapping
from importlib.resources import files


class _Template(string.Template):
    delimiter = "@"


def filled(name: str, blanks: Mapping[str, object]) -> str:
    """A template with its blanks filled in. Raises `KeyError` for a blank that is not given."""
    return _Template(files("fccl").joinpath("assets", name).read_text(encoding="utf-8")).substitute(blanks)
