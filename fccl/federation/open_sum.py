"""`OpenSum`: a masked sum whose masks are not off yet, in memory and on the disk.

A client helps to open one sum of a round. So the sum that was asked for first is the one that a server which was killed
goes on with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import numpy as np

from fccl.messages import ClientFailure, FitTask
from fccl.messages.secure import SealedShares, UnmaskTask
from fccl.privacy.cohort import Digits, SecureSpec, Session
from fccl.privacy.fixed_point import Words
from fccl.specs import ClientId, Value, exactly
from fccl.storage.files import read_whole, write_bytes
from fccl.storage.private import private_folder
from fccl.storage.reading import is_there, read_value

JSON_NAME, WORDS_NAME = "open_sum.json", "open_sum.words"
_PRIVATE = 0o600


class Missing(Value):
    """A client without an update, as `ClientFailure`."""

    client_id: ClientId
    reason: str
    declines: bool = False

    @classmethod
    def of(cls, failure: ClientFailure) -> Self:
        """The failure as a value with JSON."""
        return cls(client_id=failure.client_id, reason=failure.reason, declines=failure.declines)


class KeptSum(Value):
    """`open_sum.json`: all of an open sum but its words, which lie beside it."""

    version: Annotated[int, exactly(2)] = 2
    session: Session
    spec: SecureSpec
    asked: Digits  # `fccl.training.masking.asked_of`
    shares: tuple[SealedShares, ...]  # of the members
    survivors: tuple[ClientId, ...]
    missing: tuple[Missing, ...] = ()
    words_sha256: Digits  # of the words, the lowest byte first


@dataclass(frozen=True, eq=False)
class OpenSum:
    """A masked sum: `kept` says of whom, `total` has its words, (d + 1,)."""

    kept: KeptSum
    total: Words

    @classmethod
    def of(
        cls,
        session: Session,
        spec: SecureSpec,
        asked: str,
        shares: Sequence[SealedShares],
        survivors: tuple[int, ...],
        failures: Sequence[ClientFailure],
        total: Words,
    ) -> Self:
        """The sum of the survivors' masked updates."""
        kept = KeptSum(
            session=session,
            spec=spec,
            asked=asked,
            shares=tuple(shares),
            survivors=survivors,
            missing=tuple(map(Missing.of, failures)),
            words_sha256=hashlib.sha256(_bytes(total)).hexdigest(),
        )
        return cls(kept, total)

    @property
    def dropped(self) -> tuple[int, ...]:
        """The members without an update."""
        return tuple(member for member in self.kept.spec.members if member not in self.kept.survivors)

    def failures(self) -> list[ClientFailure]:
        """The clients without an update, in client order."""
        found = (ClientFailure(each.client_id, each.reason, each.declines) for each in self.kept.missing)
        return sorted(found, key=lambda failure: failure.client_id)

    def request(self) -> UnmaskTask:
        """The request for the shares that open it."""
        kept = self.kept
        return UnmaskTask(*kept.session.parts, kept.spec.cohort, kept.survivors, self.dropped, kept.shares)


@dataclass(frozen=True)
class OpenSums:
    """The server's private folder, which has at most one open sum."""

    folder: Path

    def of(self, task: FitTask) -> OpenSum | None:
        """The open sum of the task's round and adapter, if there is one."""
        kept = read_value(self.folder / JSON_NAME, KeptSum)
        if kept is None or not is_there(self.folder / WORDS_NAME):
            return None
        about = task.run_id, task.round, task.phase, task.adapter.sha256
        content = read_whole(self.folder / WORDS_NAME)
        if kept.session.parts[:-1] != about or hashlib.sha256(content).hexdigest() != kept.words_sha256:
            return None
        return OpenSum(kept, np.frombuffer(content, dtype="<u4").astype(np.uint32))

    def keep(self, found: OpenSum) -> None:
        """Write it down, in the place of the last round's; the words first. Raises `StorageError`."""
        private_folder(self.folder)
        write_bytes(self.folder / WORDS_NAME, _bytes(found.total), _PRIVATE)
        write_bytes(self.folder / JSON_NAME, found.kept.model_dump_json().encode() + b"\n", _PRIVATE)


def _bytes(words: Words) -> bytes:
    return words.astype("<u4").tobytes()
