"""Where examples come from: the built-in data, a local file, or the hub. Names go in, numbered rows come out.

Local `.json` and `.jsonl` files are read by `json_files`; `.parquet` files and the hub by the `datasets` library.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, cast

from fccl.data.examples import PreferencePair, SftExample, fields_of
from fccl.data.json_files import json_rows
from fccl.errors import DataError
from fccl.specs import Phase
from fccl.storage.files import sha256_of, storage_errors

if TYPE_CHECKING:
    from datasets import Dataset

BUILTIN = "builtin"
ENDINGS = (".json", ".jsonl", ".json.gz", ".jsonl.gz", ".parquet")
HUB_SECONDS = 8.0  # to find out whether the hub answers

SourceKind = Literal["builtin", "file", "hub"]
_LONGEST_HUB_NAME = 96  # letters; the hub's own rule
_HUB_NAME = re.compile(r"\w[\w.-]*(/[\w.-]+)?")
_WAYS_OUT = (
    "name a local .json, .jsonl or .parquet file, use `builtin`, or set HF_HUB_OFFLINE=1 if the data set is "
    "in "
    "the "
    "hub's local cache"
)


@dataclass(frozen=True)
class Source:
    """Rows of a file or of a hub data set, with their line (row number from 1 where there are no lines)."""

    name: str
    kind: SourceKind
    revision: str  # of a hub data set, where the hub said it
    rows: Iterable[tuple[int, Any]]


def kind_of(name: str) -> SourceKind:
    """Whether `name` is the built-in data, a local file or a hub data set.

    Raises `DataError` when it can be none of them.
    """
    if name == BUILTIN:
        return "builtin"
    path = Path(name)
    if _exists(path) or _ending(path):
        return "file"
    if len(name) <= _LONGEST_HUB_NAME and _HUB_NAME.fullmatch(name) and ("/" in name or not path.suffix):
        return "hub"
    raise DataError(
        f"{name} is neither a file that is there nor the name of a hub data set",
        hint=f"a file must end in {', '.join(ENDINGS)}",
    )


def open_source(name: str, phase: Phase) -> Source:
    """The rows of a file or hub data set. `phase` decides between the splits of a hub data set that has one for each.

    Raises `DataError` when the source is not there, not readable or not reachable, `StorageError` when the disk
    refuses.
    """
    if kind_of(name) == "hub":
        revision = ask_hub(name)
        return Source(name, "hub", revision, enumerate(_read_hub(name, phase), start=1))
    path = Path(name)
    if not _exists(path):
        raise DataError(
            f"{name} is not there", hint="check the path; it is relative to the folder that the command runs in"
        )
    if not path.is_file():
        what = "a folder" if path.is_dir() else "a device or a pipe, not a file"
        raise DataError(f"{name} is {what}", hint=f"name one file that ends in {', '.join(ENDINGS)}")
    return Source(name, "file", "", _file_rows(path))


def _ending(path: Path) -> str:
    """The accepted ending of a file's name, "" when it has none of them."""
    return next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), "")


def _exists(path: Path) -> bool:
    """Whether there is such a path.

    A name that is too long for one, or impossible, is nobody's; a folder that may not be entered is an error.
    """
    try:
        return path.exists()
    except ValueError:
        return False
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        with storage_errors(path, "read"):
            raise


def builtin_examples(phase: Phase) -> list[SftExample] | list[PreferencePair]:
    """The built-in examples of one kind, `topic` set to their skill."""
    return cast(list[SftExample] | list[PreferencePair], list(_builtin(phase)))


@cache
def _builtin(phase: Phase) -> tuple[SftExample | PreferencePair, ...]:
    """Made once in a process: they are always the same, and making them takes longer than the rest of a preparation."""
    from fccl.data.builtin.dataset import builtin_sft, builtin_va

    return tuple(builtin_sft() if phase == "sft" else builtin_va())


@cache
def _builtin_digest(phase: Phase) -> str:
    return digest_of(builtin_examples(phase))


def fingerprint(name: str, phase: Phase) -> str | None:
    """The SHA-256 of a local file or of the built-in data as they are now; None when that cannot be known without the
    network.
    """
    if name == BUILTIN:
        return _builtin_digest(phase)
    path = Path(name)
    return sha256_of(path) if _exists(path) and path.is_file() else None


def digest_of(examples: Sequence[SftExample] | Sequence[PreferencePair]) -> str:
    """The SHA-256 of examples."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps([*fields_of(example).values()]).encode() + b"\n")
    return digest.hexdigest()


def _file_rows(path: Path) -> Iterable[tuple[int, Any]]:
    ending = _ending(path)
    if not ending:
        raise DataError(f"{path} has an unknown ending", hint=f"a file must end in {', '.join(ENDINGS)}")
    if ending == ".parquet":
        return enumerate(_read_parquet(path), start=1)
    return json_rows(path)


def _read_parquet(path: Path) -> Dataset:
    from datasets import Dataset, disable_progress_bars
    from datasets.utils.logging import set_verbosity

    disable_progress_bars()
    set_verbosity(logging.CRITICAL)  # what it says of a damaged file is said once, by the error
    with (
        storage_errors(path, "read"),
        TemporaryDirectory() as cache,
    ):  # else `datasets` keeps a copy of the file for good
        try:
            return Dataset.from_parquet(str(path), cache_dir=cache, keep_in_memory=True)
        except OSError:
            raise
        except Exception as error:  # pyarrow's and datasets' errors share no base
            raise DataError(
                f"{path} is not a readable parquet file: {_first_line(error.__cause__ or error)}",
                hint="fetch or save it again",
            ) from error


def ask_hub(name: str) -> str:
    """The revision of a hub data set, "" when offline mode is on.

    Asked before anything is loaded: left alone, the library retries for 23 seconds where there is no network. The
    thread bounds what the library's own time-out does not, a name server that never answers. Raises `DataError`.
    """
    from huggingface_hub import HfApi, is_offline_mode
    from huggingface_hub.errors import HfHubHTTPError

    if is_offline_mode():
        return ""
    answers: list[str | Exception] = []

    def ask() -> None:
        try:
            answers.append(HfApi().dataset_info(name, timeout=HUB_SECONDS).sha or "")
        except Exception as error:  # whatever it is, the caller's thread reports it
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_SECONDS)
    answer = answers[0] if answers else TimeoutError(f"no answer within {HUB_SECONDS:g} s")
    if isinstance(answer, HfHubHTTPError):
        raise DataError(f"the hub does not give out a data set {name!r}: {_first_line(answer)}", hint=_WAYS_OUT)
    if isinstance(answer, Exception):
        raise DataError(
            f"{name!r} is no local file, and the hub cannot be reached: {_first_line(answer)}", hint=_WAYS_OUT
        )
    return answer


def _read_hub(name: str, phase: Phase) -> Dataset:
    import datasets

    try:
        splits = datasets.load_dataset(name)
    except Exception as error:  # the library's errors share no base; every one means that the data cannot be had
        raise DataError(f"cannot load the data set {name!r}: {_first_line(error)}", hint=_WAYS_OUT) from error
    for split in ("train", f"train_{'prefs' if phase == 'va' else 'sft'}"):
        if split in splits:
            return splits[split]
    found = ", ".join(map(str, splits))
    raise DataError(
        f"the data set {name!r} has no split 'train' (it has {found})",
        hint="save the split you want as a .parquet file",
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
