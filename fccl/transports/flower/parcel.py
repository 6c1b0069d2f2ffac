"""`Parcel`: files of the exchange directory as one Flower record: one flat array of bytes, and the names in it.

One array, for Flower carries every array of a record as objects of its own, and many small ones cost more than their
bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fccl.display.plain_text import printable
from fccl.errors import UpdateRejected

VERSION = 1  # of the parcel
_SAYS, _HOLDS, _FLAT = "parcel", "files", "bytes"  # the two records, and the one array of the second
_MOST_FILES = 20
MOST_S = 1e9  # that a parcel may say
Item = TypeVar("Item", str, int)


@dataclass(frozen=True)
class Parcel:
    """Files by name, in the order in which they are to be written: the last one commits the others.

    The server's parcel names the file that commits the answer, if one is awaited. An answer that cannot be had is a
    parcel without files that says why.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    answer: str = ""
    refused: tuple[str, ...] = ()  # SHA-256 of answers that the server has refused: the next one is wanted
    wait_s: float = 0.0  # for the answer
    stale_s: float = 0.0  # a worker whose heartbeat is older is not waited for
    problem: str = ""

    @property
    def length(self) -> int:
        """The bytes of all its files."""
        return sum(map(len, self.files.values()))

    def record(self) -> RecordDict:
        """The parcel as the content of a message. All its files are one array: uint8, (bytes of all files,)."""
        content = b"".join(self.files.values())
        says = ConfigRecord(
            {
                "version": VERSION,
                "names": list(self.files),
                "lengths": [len(each) for each in self.files.values()],
                "sha256": [hashlib.sha256(each).hexdigest() for each in self.files.values()],
                "answer": self.answer,
                "refused": list(self.refused),
                "wait-s": self.wait_s,
                "stale-s": self.stale_s,
                "problem": self.problem,
            }
        )
        holds = {_FLAT: Array("uint8", (len(content),), "bytes", content)} if content else {}
        return RecordDict({_SAYS: says, _HOLDS: ArrayRecord(holds)})

    @classmethod
    def of_record(cls, record: RecordDict) -> Parcel:
        """The parcel again. Raises `UpdateRejected` when the record is anything else."""
        if set(record) != {_SAYS, _HOLDS}:
            raise UpdateRejected(f"the message is no parcel: its records are {printable(str(sorted(record)), 200)}")
        said, held = record[_SAYS], record[_HOLDS]
        if not isinstance(said, ConfigRecord) or not isinstance(held, ArrayRecord):
            raise UpdateRejected("the message is no parcel: its records have other types")
        if said.get("version") != VERSION:
            raise UpdateRejected(f"the message is a parcel of version {printable(str(said.get('version')), 20)}, not 1")
        return cls(
            _files(said, _flat(held)),
            _text(said, "answer"),
            tuple(_list_of(said, "refused", str)),
            _seconds(said, "wait-s"),
            _seconds(said, "stale-s"),
            printable(_text(said, "problem"), 500),
        )


def _flat(held: ArrayRecord) -> bytes:
    """The bytes of the one array; none where there is no array."""
    if set(held) - {_FLAT}:
        raise UpdateRejected(f"the parcel has arrays {printable(str(sorted(held)), 200)}, not one of bytes")
    return held[_FLAT].data if held else b""


def _files(said: ConfigRecord, content: bytes) -> dict[str, bytes]:
    names, lengths, hashes = _list_of(said, "names", str), _list_of(said, "lengths", int), _list_of(said, "sha256", str)
    if not len(names) == len(set(names)) == len(lengths) == len(hashes) <= _MOST_FILES:
        raise UpdateRejected("the parcel does not name each of its files once")
    if min(lengths, default=0) < 0 or sum(lengths) != len(content):
        raise UpdateRejected(f"the parcel holds {len(content):,} bytes, its files have {sum(lengths):,}")
    files, place = {}, 0
    for name, length, sha256 in zip(names, lengths, hashes, strict=True):
        files[name] = content[place : place + length]
        place += length
        if hashlib.sha256(files[name]).hexdigest() != sha256:
            raise UpdateRejected(f"{printable(name, 100)} is not the file that its parcel speaks of")
    return files


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
