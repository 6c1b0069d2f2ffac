"""The plan of `fccl compare`: rounds that are measured first, and for the primary set its cost and its budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

from rich.console import Console

from fccl.apps.compare_choice import Choice
from fccl.apps.terminal_tables import print_table
from fccl.compare import evidence
from fccl.compare.cost import HOUR, Fit, Rates, cost_table, fitted
from fccl.compare.plan import Planner
from fccl.compare.store import finished
from fccl.compare.trial import Trial
from fccl.specs import PHASES

Run = Callable[[Sequence[Trial]], None]  # runs what of these is not finished


def to_run(console: Console, planner: Planner, choice: Choice, run: Run) -> Fit:
    """The trials of a choice, once it is known how many rounds each has.

    Raises what preparing data and running trials raise.
    """
    if choice.primary:
        return _within_budget(console, planner, choice, run)
    run(measures(planner, choice))
    return Fit(tuple(planner.trials(choice.scenarios, choice.methods, choice.seeds)), 0.0, ())


def measures(planner: Planner, choice: Choice) -> list[Trial]:
    """The trials that find how many rounds FedAvg needs, of those scenarios that go on until then."""
    flat = [scenario for scenario in choice.scenarios if scenario.until_flat]
    return [planner.measure(scenario, seed) for seed in choice.seeds for scenario in flat]


def _within_budget(console: Console, planner: Planner, choice: Choice, run: Run) -> Fit:
    """The primary set: first cells to measure by, a table of what it costs at most, the rounds, and a table again.

    What does not fit is left out and named.
    """
    console.print("The first cells measure what a round of each method takes.", soft_wrap=True)
    first = calibration(planner, choice)
    run(first)
    long = measures(planner, choice)
    _tell(
        console, "At most, with every scenario until flat at its longest", planner, [*_longest(planner, choice), *long]
    )
    run(long)
    trials = list(planner.trials(choice.scenarios, choice.methods, choice.seeds))
    rates = _rates(planner, [*first, *long, *trials])
    spent = sum({trial.spec.key: rates.of_trial(trial) for trial in long}.values())
    fit = fitted(trials, rates, evidence.HOURS * HOUR * evidence.CORES - spent)
    _tell(console, "With the rounds that were measured", planner, [*fit.trials, *long])
    for line in fit.left_out:
        console.print(f"Not run, beyond {evidence.HOURS:g} hours of {evidence.CORES} cores: {line}", soft_wrap=True)
    return fit


def calibration(planner: Planner, choice: Choice) -> list[Trial]:
    """The first scenario of each phase under every method, with the first seed."""
    short = [scenario for scenario in choice.scenarios if not scenario.until_flat]
    firsts = [next((scenario for scenario in short if scenario.phase == phase), None) for phase in PHASES]
    chosen = [scenario for scenario in firsts if scenario is not None]
    return list(planner.trials(chosen, choice.methods, choice.seeds[:1]))


def _longest(planner: Planner, choice: Choice) -> list[Trial]:
    """All trials, those until flat with as many rounds as there can be."""
    each = (planner.longest(scenario, choice.methods, choice.seeds) for scenario in choice.scenarios)
    return list(chain.from_iterable(each))


def _rates(planner: Planner, trials: Sequence[Trial]) -> Rates:
    results = ((trial, finished(planner.paths, trial)) for trial in trials)
    return Rates.of((trial, result) for trial, result in results if result is not None)


def _tell(console: Console, words: str, planner: Planner, trials: Sequence[Trial]) -> None:
    console.print(f"{words}:", soft_wrap=True)
    print_table(console, cost_table(trials, _rates(planner, trials), evidence.CORES), stacked=False)
