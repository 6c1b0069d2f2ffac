"""`Spent`: the ledger of a secret's owner, a line for every release, written before the release leaves.

A release that is repeated to the bit after a kill is the same line, and is spent once. Made again under another secret,
or of another sum, it is another line: what was lost counts as spent.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from fccl.errors import StorageError, UpdateRejected
from fccl.privacy.accountant import Steps, accounting_of, epsilon_of_steps, noise_of_all
from fccl.privacy.spec import PrivacySpec, Unit
from fccl.specs import Round, RunId, Value
from fccl.storage.files import write_bytes
from fccl.storage.reading import is_there, parse, read_bounded

NAME = "spent.jsonl"
LOST = "lost"  # in the place of the secret's name, of a release that may have been made before the secret was lost
_MOST_BYTES = 2**26


class Release(Value):
    """One noised release of a client's change, or at the server of a round's sum.

    Where the unit is the example, it is the outcome of `steps` noised steps, each of which drew an example with
    probability `rate`.
    """

    run_id: RunId
    round: Round
    secret: str  # its name
    tag: str  # `fccl.privacy.mechanism.tag_of`
    noise: float = Field(gt=0)  # the multiplier
    unit: Unit = "client"
    rate: float = Field(default=1.0, gt=0, le=1)
    steps: int = Field(default=1, ge=1)

    def as_steps(self) -> Steps:
        """The noised sums that one example has a part in. A whole change that is clipped moves by 2 clips at most."""
        noise = self.noise if self.unit == "example" else self.noise / 2
        return Steps(noise=noise, rate=self.rate, count=self.steps)


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


def epsilon_of(releases: Iterable[Release], unit: Unit, delta: float) -> float:
    """ε at δ of a client's releases together, for one whole client or for one of its examples.

    Releases whose unit was the example bound nothing for the whole client: infinity.
    """
    known = list(releases)
    if unit == "example":
        return epsilon_of_steps(_steps_of(known), delta)
    if any(each.unit == "example" for each in known):
        return math.inf
    if not known:
        return 0.0
    noise = noise_of_all(each.noise for each in known)
    return accounting_of(PrivacySpec(where="client", clip=1.0, noise=noise, epsilon=1.0, delta=delta), 1, 1).epsilon(1)


def _steps_of(releases: Iterable[Release]) -> Iterator[Steps]:
    """The noised sums of these releases. Those by example of one round and secret may have had the same batches, where
    a machine's sums are not the same twice: they count as one, with the noise that all of them leave.
    """
    drawn: dict[tuple[str, int, str], list[Release]] = {}
    for each in releases:
        if each.unit == "example":
            drawn.setdefault((each.run_id, each.round, each.secret), []).append(each)
        else:
            yield each.as_steps()
    for together in drawn.values():
        noise = together[0].noise if len(together) == 1 else noise_of_all(each.noise for each in together)
        yield Steps(noise=noise, rate=max(each.rate for each in together), count=max(each.steps for each in together))


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
