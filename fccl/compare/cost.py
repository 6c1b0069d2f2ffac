"""The cost of a comparison, before it is run: cells times seconds, and what does not fit.

A cell is a federation that is run once, whatever number of trials are it or its first rounds. A finished cell costs the
seconds that it took. Any other costs its rounds times the seconds that a round of its method took in finished cells.
Seconds are of a processor, so that a busy machine does not make the set smaller. Scenarios are kept or left out whole
for a seed, so that all methods of a scenario have the same seeds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from fccl.compare.store import runs
from fccl.compare.trial import Trial
from fccl.compare.values import TrialResult
from fccl.display.tables import Cell, Table

HOUR = 3600.0


@dataclass(frozen=True)
class Rates:
    """Seconds of one core that a round takes, by method and phase."""

    seconds: Mapping[tuple[str, str], float]
    finished: Mapping[str, float] = field(default_factory=dict)  # seconds of each finished cell, by its key

    @classmethod
    def of(cls, finished: Iterable[tuple[Trial, TrialResult]]) -> Rates:
        """The means of what was measured.

        The updates of a first round may have been trained before, so a trial's seconds are counted as those of its
        other rounds. A beginning of a longer trial, which took none, measures nothing.
        """
        found: dict[tuple[str, str], list[float]] = defaultdict(list)
        cells = {trial.spec.key: (trial, result) for trial, result in finished}
        for trial, result in cells.values():
            if result.seconds > 0:
                rounds = len(result.rounds) or trial.spec.rounds
                found[trial.method, trial.spec.phase].append(result.seconds / max(1, rounds - 1))
        done = {key: result.seconds for key, (_, result) in cells.items()}
        return cls({key: fmean(values) for key, values in found.items()}, done)

    def of_trial(self, trial: Trial) -> float:
        """Seconds of a trial. A method without a measurement takes as long as the slowest that has one."""
        if trial.spec.key in self.finished:
            return self.finished[trial.spec.key]
        slowest = max((value for (_, phase), value in self.seconds.items() if phase == trial.spec.phase), default=0.0)
        return trial.spec.rounds * self.seconds.get((trial.method, trial.spec.phase), slowest)


@dataclass(frozen=True)
class Fit:
    """The trials that fit into a budget, and what does not, in words."""

    trials: tuple[Trial, ...]
    seconds: float  # of one core, of all of them, finished or not
    left_out: tuple[str, ...]


def fitted(trials: Sequence[Trial], rates: Rates, budget: float) -> Fit:
    """As many as fit into so many seconds of one core: seed by seed, within a seed scenario by scenario, in order."""
    kept: list[Trial] = []
    spent, seen, out = 0.0, set[str](), list[str]()
    cells = runs(trials)
    for (scenario, seed), group in _groups(trials).items():
        needed = {cells[trial.spec.key].spec.key: cells[trial.spec.key] for trial in group}
        fresh = {key: cell for key, cell in needed.items() if key not in seen}
        cost = sum(map(rates.of_trial, fresh.values()))
        if spent + cost > budget:
            out.append(f"{scenario}, seed {seed}: {cost / HOUR:.2f} core hours more")
            continue
        spent += cost
        seen |= fresh.keys()
        kept += group
    return Fit(tuple(kept), spent, tuple(out))


def _groups(trials: Sequence[Trial]) -> dict[tuple[str, int], list[Trial]]:
    found: dict[tuple[str, int], list[Trial]] = defaultdict(list)
    for trial in trials:
        found[trial.scenario, trial.seed].append(trial)
    return found


def cost_table(trials: Sequence[Trial], rates: Rates, cores: int) -> Table:
    """Cells times seconds by method and phase, and their sum; each cell once."""
    cells = {cell.spec.key: cell for cell in runs(trials).values()}
    kinds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for trial in sorted(cells.values(), key=lambda trial: (trial.spec.phase, trial.method)):
        kinds[trial.method, trial.spec.phase].append(rates.of_trial(trial))
    rows = [_row(f"{method}, {phase}", seconds) for (method, phase), seconds in kinds.items()]
    every = [each for seconds in kinds.values() for each in seconds]
    note = f"On {cores} core{'s' * (cores > 1)}: {sum(every) / cores / HOUR:.1f} hours, if nothing else runs."
    head = ("method", "cells", "seconds each", "core hours")
    return Table("What it costs", head, (*rows, _row("all", every)), note, last_is_sum=True)


def _row(name: str, seconds: Sequence[float]) -> tuple[Cell, ...]:
    mean = fmean(seconds) if seconds else 0.0
    return Cell(name), Cell(str(len(seconds))), Cell(f"{mean:.0f}"), Cell(f"{sum(seconds) / HOUR:.2f}")
