"""Training, learn, validation and test splits: by instruction, so that no instruction is in two of them, neither within
SFT or VA nor across.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Generic

from fccl.data.examples import Example, PreferencePair, SftExample
from fccl.errors import DataError
from fccl.specs import DataSpec, Phase, named_seed

SERVER_SPLITS = ("learn", "validation", "test")
SPLITS = ("train", *SERVER_SPLITS)


@dataclass(frozen=True)
class Split(Generic[Example]):
    """The examples of one kind. `train` is dealt to the clients, the others stay with the server.

    Weights and server learning may use `learn`. A run is watched and stopped by `validation`, to which nothing is ever
    fitted. `test` is read once, at the end.
    """

    train: tuple[Example, ...] = ()
    learn: tuple[Example, ...] = ()
    validation: tuple[Example, ...] = ()
    test: tuple[Example, ...] = ()

    def parts(self) -> dict[str, tuple[Example, ...]]:
        return {part.name: getattr(self, part.name) for part in fields(self)}


def group_key(instruction: str) -> str:
    """The key by which two instructions are the same: their words, whatever the case and the white space."""
    return " ".join(instruction.split()).casefold()


def split_by_instruction(
    sft: Sequence[SftExample], va: Sequence[PreferencePair], spec: DataSpec
) -> tuple[Split[SftExample], Split[PreferencePair]]:
    """Split both kinds so that an instruction of one is in the same split of the other, or not in it at all.

    Instructions are ranked by a hash of (seed, instruction). The kind with fewer distinct ones is split first, in order
    of rank. The other follows it where they share an instruction and fills up from the rest. The sizes are exact to one
    example when no kind has an instruction twice: the second kind's quotas are not smaller, so what it must follow
    fits. A repeated instruction stays in one split, in training when there are more of it
    than the server's splits still want.

    `va` may be empty (pairs made later). Raises `DataError` when there are too few distinct instructions for four
    splits.
    """
    counts: dict[Phase, Counter[str]] = {"sft": _count(sft), "va": _count(va)}
    places: dict[str, str] = {}
    for phase in sorted(counts, key=lambda phase: len(counts[phase])):
        if counts[phase]:
            places |= _place(counts[phase], places, spec)
            _check(phase, counts[phase], places, SERVER_SPLITS if spec.server_only else SPLITS)
    return _divide(sft, places), _divide(va, places)


def _count(examples: Sequence[Any]) -> Counter[str]:
    return Counter(group_key(example.instruction) for example in examples)


def _place(counts: Counter[str], known: Mapping[str, str], spec: DataSpec) -> dict[str, str]:
    """The split of every group of one kind, given those that the other kind has already placed."""
    places = {group: known[group] for group in counts if group in known}
    free = sorted(
        (group for group in counts if group not in known),
        key=lambda group: (named_seed(spec.seed, "split", group), group),
    )
    total = counts.total()
    quotas = _server_quotas(total, spec) if spec.server_only else _quotas(total, spec)
    for split in quotas if spec.server_only else (*quotas, "train"):  # first, one group to each that has none
        if free and split not in places.values():
            group = _first(free, counts, quotas.get(split))
            places[group] = split
            free.remove(group)
    for split, quota in quotas.items():
        held = sum(counts[group] for group, place in places.items() if place == split)
        places |= dict.fromkeys(_fill(free, counts, quota - held), split)
        free = [group for group in free if group not in places]
    return places | dict.fromkeys(free, "train")


def _quotas(total: int, spec: DataSpec) -> dict[str, int]:
    """The sizes of the server's splits, beside training data of at least as many examples."""
    return {
        "test": max(1, min(spec.test_examples, total // 5)),
        "learn": max(1, min(spec.learn_examples, total // 20)),
        "validation": max(1, min(spec.validation_examples, total // 20)),
    }


def _server_quotas(total: int, spec: DataSpec) -> dict[str, int]:
    """The sizes of the server's splits where they have all the data; of few examples each has its share."""
    wanted = {"test": spec.test_examples, "learn": spec.learn_examples, "validation": spec.validation_examples}
    share = min(1.0, total / sum(wanted.values()))
    return {split: max(1, int(count * share)) for split, count in wanted.items()}


def _first(ranked: Sequence[str], counts: Mapping[str, int], quota: int | None) -> str:
    """The first group that fits into the quota, else a smallest one; without a quota, the last of the largest."""
    if quota is None:
        return max(reversed(ranked), key=lambda group: counts[group])
    return next((group for group in ranked if counts[group] <= quota), min(ranked, key=lambda group: counts[group]))


def _fill(ranked: Sequence[str], counts: Mapping[str, int], quota: int) -> list[str]:
    """Groups in order of rank, as far as they fit into `quota` examples."""
    chosen, size = [], 0
    for group in ranked:
        if size + counts[group] <= quota:
            chosen.append(group)
            size += counts[group]
    return chosen


def _check(phase: Phase, counts: Counter[str], places: Mapping[str, str], needed: Sequence[str]) -> None:
    if not set(needed) <= {places[group] for group in counts}:
        training, least = ("a training, ", "four") if "train" in needed else ("", "three")
        raise DataError(
            f"{len(counts)} distinct instructions ({phase.upper()}) are too few for {training}a learn, a "
            "validation and a test split",
            hint=f"at least {least} are needed; bring more data",
        )


def _divide(examples: Sequence[Example], places: Mapping[str, str]) -> Split[Example]:
    parts: dict[str, list[Example]] = {split: [] for split in SPLITS}
    for example in examples:
        parts[places[group_key(example.instruction)]].append(example)
    return Split(*(tuple(parts[split]) for split in SPLITS))
