"""The work of a run before it is run, from the settings and the data alone: who trains when, steps, tokens, files.

Every figure here is exact: the draws of clients and of batches have named seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fccl.federation.run_folder import KEPT_ROUNDS
from fccl.federation.selection import select_clients
from fccl.records.forecast import SpaceForecast
from fccl.specs import Phase, RoundPlan, TrainSpec, named_seed
from fccl.training.loop import batches_by_epoch

Lengths = Mapping[int, Sequence[int]]  # client -> tokens of each of its examples


@dataclass(frozen=True)
class Work:
    """One client's training in one round."""

    examples: int
    steps: int
    tokens: int  # read in all epochs, padding not counted
    longest: int  # the most tokens that go through the model together


@dataclass(frozen=True)
class PlannedRound:
    """One round: its clients and what each has to do."""

    number: int
    phase: Phase
    work: Mapping[int, Work]


def planned_rounds(
    plan: RoundPlan, train: Mapping[Phase, TrainSpec], lengths: Mapping[Phase, Lengths]
) -> Iterator[PlannedRound]:
    """All rounds of a run that no phase of ends early. `lengths` has every client that has examples of a kind."""
    for number in range(plan.total_rounds):
        phase = plan.phase_of(number)
        known = lengths[phase]
        selected = select_clients(plan, number, {client for client in range(plan.num_clients) if not known.get(client)})
        work = {client: _work(known[client], train[phase], (plan.seed, phase, number, client)) for client in selected}
        yield PlannedRound(number, phase, work)


def _work(lengths: Sequence[int], train: TrainSpec, named: tuple[int, Phase, int, int]) -> Work:
    """The batches are those of the training itself: `FitTask.client_seed` names their draw."""
    seed, *names = named
    batches = [batch for epoch in batches_by_epoch(lengths, train, named_seed(seed, *names)) for batch in epoch]
    size = train.at_a_time
    parts = (batch[start : start + size] for batch in batches for start in range(0, len(batch), size))
    longest = max(sum(lengths[index] for index in part) for part in parts)
    return Work(len(lengths), len(batches), train.epochs * sum(lengths), longest)


@dataclass(frozen=True)
class FileSizes:
    """The bytes of one file of each kind; 0 where the run has none of it."""

    adapter: int  # the global one
    update: int  # a client's, as it arrives
    client: int  # a client's last update, as the run keeps it
    peft: int  # the final adapter in PEFT's format, with its card
    control: int = 0  # SCAFFOLD's, of one client
    server: int = 0  # the state of the aggregation rule
    starts_from: bool = False  # the run begins with somebody's adapter
    told: int = 0  # records of a kept round: text
    lines: int = 0  # records of the run for each round: text
    once: int = 0  # records of the whole run: text


@dataclass(frozen=True)
class KeptSpace:
    """The kept updates at the end: how many of the run's last rounds, and their bytes."""

    rounds: int
    size: int
    whole: int  # bytes of all rounds, if there were room


def kept_space(rounds: Sequence[PlannedRound], sizes: FileSizes, most: int) -> KeptSpace:
    """The rounds that are still there at the end, where so many bytes may be kept: the oldest went first."""
    each = [
        sizes.adapter + len(one.work) * (sizes.update + sizes.control) + sizes.server + sizes.told for one in rounds
    ]
    count, taken = 0, 0
    for length in reversed(each):
        if taken + length > most:
            break
        count, taken = count + 1, taken + length
    return KeptSpace(count, taken, sum(each))


def space(plan: RoundPlan, rounds: Sequence[PlannedRound], sizes: FileSizes, most: int) -> tuple[SpaceForecast, ...]:
    """The files of a finished run that no phase of ended early, by kind."""
    kept, total = kept_space(rounds, sizes, most), plan.total_rounds
    named = {*range(max(0, total + 1 - KEPT_ROUNDS), total + 1), plan.rounds_of("sft")}
    whole = len(named) + 2 + (sizes.starts_from and plan.rounds_of("sft") > 0)  # with reference and final adapter
    pairs = {(one.phase, client) for one in rounds for client in one.work}
    files = {
        "global adapters": whole * sizes.adapter + len(named - {0}) * sizes.server,
        "the adapter for PEFT": sizes.peft,
        "clients' last updates": len(pairs) * (sizes.client + sizes.control),
        f"kept updates: {kept.rounds} of {total} rounds": kept.size - kept.rounds * sizes.told,
    }
    text = kept.rounds * sizes.told + total * sizes.lines + sizes.once
    found = [SpaceForecast(name=name, size=size, exact=plan.result_round == "last") for name, size in files.items()]
    return (*found, SpaceForecast(name="records", size=text, exact=False))
