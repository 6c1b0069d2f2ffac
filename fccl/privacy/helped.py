"""`Helped`: a client's own ledger of secure sums, so that it never helps to open two masks where it may open one.

A line is written before a masked update or shares leave. Keys of a session are for one cohort: else the mask key may be
opened in one and the seed in another. Under one cohort one update is masked, for one set of members: the difference of
two under the same masks has none. Of one round's adapter one sum is opened: a second one over other clients would tell
the two sets apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fccl.errors import StorageError, UpdateRejected
from fccl.privacy.cohort import Digits, Session
from fccl.specs import ClientId, Value
from fccl.storage.files import write_bytes
from fccl.storage.reading import is_there, parse, read_bounded

NAME = "masked.jsonl"
_MOST_BYTES = 2**28


class MaskedFor(Value):
    """A cohort that this client has given shares to, the masked update that may have left for it, and the clients whose
    sum this client has helped to open since.
    """

    session: Session
    tag: Digits  # `fccl.privacy.cohort.Cohort.tag`
    members: tuple[ClientId, ...] = ()  # none: nothing is masked yet
    masked: str = ""  # a hash of the masked update
    opened: tuple[ClientId, ...] | None = None


@dataclass(eq=False)
class Helped:
    """The ledger in a client's private folder. Raises `StorageError` where the file is damaged."""

    folder: Path
    lines: list[MaskedFor] = field(init=False)

    def __post_init__(self) -> None:
        self.lines = _read(self.folder / NAME)

    def share(self, session: Session, tag: str) -> None:
        """Note shares for a cohort. Raises `UpdateRejected` where the session's keys are in use with another cohort."""
        self._require_one_cohort(session, tag)
        if self._of(tag) is None:
            self._write([*self.lines, MaskedFor(session=session, tag=tag)])

    def mask(self, session: Session, tag: str, members: Sequence[int], masked: str) -> None:
        """Note an update that is masked for these members; `masked` is a hash of it.

        Raises `UpdateRejected` where another one was masked under the same keys, or one for other members: the
        difference would say something.
        """
        self._require_one_cohort(session, tag)
        before = self._of(tag)
        if before is not None and before.members:
            if before.members != tuple(members):
                raise UpdateRejected("its keys have masked an update for other members: it needs new keys for these")
            if before.masked != masked:
                raise UpdateRejected("its keys have masked another update: it needs new keys for this one")
            return
        line = MaskedFor(session=session, tag=tag, members=tuple(members), masked=masked)
        self._write([*(each for each in self.lines if each is not before), line])

    def open(self, session: Session, tag: str, members: Sequence[int], survivors: Sequence[int]) -> None:
        """Note that this client helps to open the sum of the survivors.

        Raises `UpdateRejected` where it has masked nothing for them, or helped to open another sum of the same round.
        """
        mine = self._of(tag)
        if mine is None or mine.members != tuple(members):
            raise UpdateRejected("this client has masked no update for these members")
        for line in self.lines:
            if line.opened is not None and _same_round(line.session, session):
                if (line.tag, line.opened) != (tag, tuple(survivors)):
                    raise UpdateRejected(
                        "this client has helped to open another sum of this round: two would tell its clients apart"
                    )
                return
        opened = mine.model_copy(update={"opened": tuple(survivors)})
        self._write([opened if line is mine else line for line in self.lines])

    def _require_one_cohort(self, session: Session, tag: str) -> None:
        if any(line.session == session and line.tag != tag for line in self.lines):
            raise UpdateRejected("this client's keys of this attempt are in use with other clients: it needs new ones")

    def _of(self, tag: str) -> MaskedFor | None:
        return next((line for line in self.lines if line.tag == tag), None)

    def _write(self, lines: list[MaskedFor]) -> None:
        content = "".join(line.model_dump_json() + "\n" for line in lines)
        write_bytes(self.folder / NAME, content.encode(), 0o600)
        self.lines = lines


def _same_round(one: Session, other: Session) -> bool:
    return one.model_copy(update={"nonce": other.nonce}) == other


def _read(path: Path) -> list[MaskedFor]:
    if not is_there(path):
        return []
    try:
        return [parse(line, MaskedFor, path.name) for line in bytes(read_bounded(path, _MOST_BYTES)).splitlines()]
    except UpdateRejected as error:
        raise StorageError(
            f"cannot tell from {path} which sums were opened: {error}",
            hint="put a copy of it back; without it nothing is sent",
        ) from error
