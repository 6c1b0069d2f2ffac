"""Reading settings: from arguments, environment, `.env`, preset and defaults, in this order of precedence."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from fccl.config.fields import choices_of, one_line_errors
from fccl.config.settings import DOTENV, Settings
from fccl.display.words import nearest
from fccl.errors import SettingsError
from fccl.registry import is_own

_DOTENV_BYTES = 2**20


def load_settings(arguments: Mapping[str, Any] | None = None) -> Settings:
    """Settings from arguments, environment, `.env`, preset and defaults, in this order of precedence.

    Raises `SettingsError` for a value that is out of range and for a misspelt name in `.env` or in `arguments`. A
    `.env` that is not text or that names a class of one's own is refused too.

    >>> load_settings({"fed_rounds": 5}).fed_rounds
    5
    """
    arguments = arguments or {}
    _refuse_unknown(arguments)
    found = _in_dotenv()
    _refuse_misspelt(found)
    _refuse_own_classes({name: value for name, value in found.items() if name.lower() not in arguments})
    with one_line_errors(Settings.model_fields):
        return Settings(**arguments)


def set_elsewhere() -> Mapping[str, str]:
    """The settings that the environment or `.env` has a value for: by name, which of the two."""
    by_name = {name.lower(): DOTENV for name, value in _in_dotenv().items() if value}
    by_name |= {name.lower(): "the environment" for name, value in os.environ.items() if value}
    return {name: where for name, where in by_name.items() if name in Settings.model_fields}


def _refuse_unknown(arguments: Mapping[str, Any]) -> None:
    for name in arguments:
        if name not in Settings.model_fields:
            guess = nearest(name, Settings.model_fields)
            raise SettingsError(
                f"unknown setting {name.upper()}",
                hint=f"did you mean {guess.upper()}?" if guess else "`fccl run --help-all` lists them",
            )


def _in_dotenv() -> Mapping[str, str | None]:
    if not Path(DOTENV).is_file():
        return {}
    try:
        if (size := Path(DOTENV).stat().st_size) > _DOTENV_BYTES:
            raise SettingsError(
                f"{DOTENV} has {size:,} bytes, at most {_DOTENV_BYTES:,} are read",
                hint="move it away; settings are lines of text",
            )
        return dotenv_values(DOTENV, encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"{DOTENV} is not UTF-8 (byte {error.start + 1})", hint="save it as UTF-8, or move it away"
        ) from error
    except OSError as error:
        raise SettingsError(
            f"cannot read {DOTENV}: {error.strerror or error}", hint="make it readable, or move it away"
        ) from error


def _refuse_misspelt(names: Iterable[str]) -> None:
    """`.env` may hold other programs' names; one that nearly is ours is a mistake that would pass unseen."""
    for name in names:
        if name.lower() not in Settings.model_fields and (
            guess := nearest(name.lower(), Settings.model_fields, cutoff=0.85)
        ):
            raise SettingsError(f"{DOTENV}: unknown setting {name}", hint=f"did you mean {guess.upper()}?")


def _refuse_own_classes(found: Mapping[str, str | None]) -> None:
    """A file that lies in a folder may come with the folder: it must not choose code that is run."""
    here = {name.lower() for name, value in os.environ.items() if value}
    for name, value in found.items():
        field = Settings.model_fields.get(name.lower())
        chosen = field is not None and choices_of(field) and is_own((value or "").strip())
        if chosen and name.lower() not in here:
            flag = "--" + name.lower().replace("_", "-")
            raise SettingsError(
                f"{DOTENV}: {name.upper()}={value} names a class, and {DOTENV} may not choose code",
                hint=f"name it with {flag}, or in the environment",
            )
