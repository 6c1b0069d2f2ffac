"""`Spent`: the ledger of a secret's owner, a line for every release, written before the release leaves.

A release that is repeated to the bit after a kill is the same line, and is spent once. Made again under another secret,
or of another sum, it is another line: what was lost counts as spent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from fccl.errors import StorageError, UpdateRejected
from fccl.specs import Round, RunId, Value
from fccl.storage.files import write_bytes
from fccl.storage.reading import is_there, parse, read_bounded

NAME = "spent.jsonl"
LOST = "lost"  # in the place of the secret's name, of a release that may have been made before the secret was lost
_MOST_BYTES = 2**26


class Release(Value):
    """One noised release of a client's change, or at the server of a round's sum."""

    run_id: RunId
    round: Round
    secret: str  # its name
    tag: str  # `fccl.privacy.mechanism.tag_of`
    noise: float = Field(gt=0)  # the multiplier


@dataclass(eq=False)
class Spent:
    """The releases from one private folder, as they were written down.

    Raises `StorageError` where the file is damaged: what is spent must not be forgotten.
    """

    folder: Path
    releases: list[Release] = field(init=False)

    def __post_init__(self) -> None:
        self.releases = _read(self.folder / NAME)

    def add(self, release: Release) -> None:
        """Write a release down, unless it was before. Raises `StorageError`; nothing may leave then."""
        if release not in self.releases:
            everything = [*self.releases, release]
            content = "".join(each.model_dump_json() + "\n" for each in everything)
            write_bytes(self.folder / NAME, content.encode(), 0o600)
            self.releases = everything

    def of(self, run_id: str) -> Sequence[Release]:
        """The releases of one run."""
        return [each for each in self.releases if each.run_id == run_id]

    def counted(self, run_id: str, more: Sequence[Release] = ()) -> tuple[int, int]:
        """The releases of one run, and `more`: those that sampling may make cheaper, and those of rounds that have
        several.

        Two releases of a round share its draw of clients. So none of the two is cheaper for it.
        """
        rounds = Counter(each.round for each in (*self.of(run_id), *more))
        return sum(count == 1 for count in rounds.values()), sum(count for count in rounds.values() if count > 1)


def _read(path: Path) -> list[Release]:
    if not is_there(path):
        return []
    try:
        lines = bytes(read_bounded(path, _MOST_BYTES)).splitlines()
        return [parse(line, Release, path.name) for line in lines]
    except UpdateRejected as error:
        raise StorageError(
            f"cannot tell from {path} what is spent: {error}", hint="put a copy of it back; without it nothing is sent"
        ) from error
