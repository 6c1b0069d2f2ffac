"""`Parcel`: files of the exchange directory as one Flower record: one flat array of bytes, and the names in it.

One array, for Flower carries every array of a record as objects of its own, and many small ones cost more than their
bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeVar

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fccl.display.plain_text import printable
from fccl.errors import UpdateRejected
from fccl.transports.flower.contents import Content

VERSION = 2  # of the parcel
_SAYS, _HOLDS, _FLAT = "parcel", "files", "bytes"  # the two records, and the one array of the second
_MOST_FILES = 20
MOST_S = 1e9  # that a parcel may say
Item = TypeVar("Item", str, int)


@dataclass(frozen=True)
class Parcel:
    """Files by name, in the order in which they are to be written: the last one commits the others.

    The server's parcel names the file that commits the answer, if one is awaited, and may leave out what the site has.
    A site that has it not answers with the names of that. An answer that cannot be had is a parcel without files that
    says why.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    answer: str = ""
    refused: tuple[str, ...] = ()  # SHA-256 of answers that the server has refused: the next one is wanted
    wait_s: float = 0.0  # for the answer
    stale_s: float = 0.0  # a worker whose heartbeat is older is not waited for
    problem: str = ""
    held: Mapping[str, Content] = field(default_factory=dict)  # more files, without their bytes; they come first
    missing: tuple[str, ...] = ()  # files that the parcel before left out, and that are not here

    @property
    def length(self) -> int:
        """The bytes that it carries: those of its files, without the ones that it leaves out."""
        return sum(map(len, self.files.values()))

    @cached_property
    def contents(self) -> Mapping[str, Content]:
        """All its files, those that it leaves out first."""
        return {**self.held, **{text: Content.of(each) for text, each in self.files.items()}}

    def record(self) -> RecordDict:
        """The parcel as the content of a message. All its files are one array: uint8, (bytes of all files,)."""
        content = b"".join(self.files.values())
        says = ConfigRecord(
            {
                "version": VERSION,
                "names": list(self.contents),
                "lengths": [each.length for each in self.contents.values()],
                "sha256": [each.sha256 for each in self.contents.values()],
                "held": list(self.held),
                "answer": self.answer,
                "refused": list(self.refused),
                "wait-s": self.wait_s,
                "stale-s": self.stale_s,
                "problem": self.problem,
                "missing": list(self.missing),
            }
        )
        holds = {_FLAT: Array("uint8", (len(content),), "bytes", content)} if content else {}
        return RecordDict({_SAYS: says, _HOLDS: ArrayRecord(holds)})

    @classmethod
    def of_record(cls, record: RecordDict, sender: Literal["server", "site"] = "site") -> Parcel:
        """The parcel again, as this side has sent it. Raises `UpdateRejected` when the record is anything else."""
        if set(record) != {_SAYS, _HOLDS}:
            raise UpdateRejected(f"the message is no parcel: its records are {printable(str(sorted(record)), 200)}")
        said, held = record[_SAYS], record[_HOLDS]
        if not isinstance(said, ConfigRecord) or not isinstance(held, ArrayRecord):
            raise UpdateRejected("the message is no parcel: its records have other types")
        _require_version(said.get("version"), sender)
        files, left_out = _files(said, _flat(held))
        return cls(
            files,
            _text(said, "answer"),
            tuple(_list_of(said, "refused", str)),
            _seconds(said, "wait-s"),
            _seconds(said, "stale-s"),
            printable(_text(said, "problem"), 500),
            left_out,
            tuple(_list_of(said, "missing", str)),
        )


def _require_version(found: object, sender: Literal["server", "site"]) -> None:
    """Raises `UpdateRejected`, with the side whose FCCL is the older one, for another version than this one's."""
    if found == VERSION:
        return
    older = sender
    if type(found) is int and found > VERSION:
        older = "site" if sender == "server" else "server"
    which = f"the {older}'s FCCL is older" if type(found) is int else "it is no number"
    raise UpdateRejected(
        f"the {sender}'s message is a parcel of version {printable(str(found), 20)}, not {VERSION}: {which}; "
        "install the same version at both"
    )


def _flat(held: ArrayRecord) -> bytes:
    """The bytes of the one array; none where there is no array."""
    if set(held) - {_FLAT}:
        raise UpdateRejected(f"the parcel has arrays {printable(str(sorted(held)), 200)}, not one of bytes")
    return held[_FLAT].data if held else b""


def _files(said: ConfigRecord, content: bytes) -> tuple[dict[str, bytes], dict[str, Content]]:
    """The files whose bytes are there, and those that are left out."""
    names, lengths, hashes = _list_of(said, "names", str), _list_of(said, "lengths", int), _list_of(said, "sha256", str)
    left_out = set(_list_of(said, "held", str))
    if not len(names) == len(set(names)) == len(lengths) == len(hashes) <= _MOST_FILES:
        raise UpdateRejected("the parcel does not name each of its files once")
    if left_out - set(names):
        raise UpdateRejected("the parcel leaves out files that it does not name")
    contents = dict(zip(names, map(Content, lengths, hashes), strict=True))
    carried = sum(each.length for name, each in contents.items() if name not in left_out)
    if min(lengths, default=0) < 0 or carried != len(content):
        raise UpdateRejected(f"the parcel holds {len(content):,} bytes, its files have {carried:,}")
    files, place = {}, 0
    for name, each in contents.items():
        if name in left_out:
            continue
        files[name] = content[place : place + each.length]
        place += each.length
        if Content.of(files[name]) != each:
            raise UpdateRejected(f"{printable(name, 100)} is not the file that its parcel speaks of")
    return files, {name: each for name, each in contents.items() if name in left_out}


def _list_of(said: ConfigRecord, name: str, kind: type[Item]) -> list[Item]:
    found = said.get(name)
    if not isinstance(found, list) or not all(type(each) is kind for each in found):
        raise UpdateRejected(f"the parcel's {name} are no list of {kind.__name__}")
    return [each for each in found if isinstance(each, kind)]


def _text(said: ConfigRecord, name: str) -> str:
    found = said.get(name)
    if not isinstance(found, str):
        raise UpdateRejected(f"the parcel's {name} is no text")
    return found


def _seconds(said: ConfigRecord, name: str) -> float:
    found = said.get(name)
    if not isinstance(found, float) or not 0 <= found <= MOST_S:
        raise UpdateRejected(f"the parcel's {name} are no seconds")
    return found
