"""The plan of `fccl compare`: rounds that are measured first, and for the primary set its cost and its budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, product

from rich.console import Console

from fccl.apps.compare_choice import Choice
from fccl.apps.terminal_tables import print_table
from fccl.compare import evidence
from fccl.compare.cost import HOUR, Fit, Rates, cost_table, fitted
from fccl.compare.plan import Planner
from fccl.compare.scenarios import Scenario
from fccl.compare.store import finished, unfinished
from fccl.compare.trial import Trial
from fccl.errors import SettingsError
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


def known(planner: Planner, choice: Choice) -> Fit:
    """The finished trials, whole scenarios of a seed at a time, and by name what is not finished. Nothing is run.

    Raises `SettingsError` where nothing is finished.
    """
    kept: list[Trial] = []
    left_out = []
    choices = product(choice.seeds, choice.scenarios) if any(planner.paths.trials.glob("*.json")) else ()
    for seed, scenario in choices:  # none where nothing is finished: to name a trial takes its data
        trials = _expected(planner, choice, scenario, seed)
        if trials and not unfinished(planner.paths, trials):
            kept += trials
        else:
            left_out.append(f"{scenario.name}, seed {seed}: not finished yet")
    if not kept:
        raise SettingsError(
            f"{planner.paths.root}/ has no scenario that is finished under every method",
            hint="run the same command without --tables-only first, or name its folder with --out",
        )
    return Fit(tuple(kept), 0.0, tuple(left_out))


def _expected(planner: Planner, choice: Choice, scenario: Scenario, seed: int) -> list[Trial]:
    """All trials of a scenario and seed; none before its rounds are known."""
    try:
        trials = list(planner.trials([scenario], choice.methods, [seed]))
    except LookupError:
        return []
    return _of_the_set(trials) if choice.primary else trials


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
    most, measured = _apart(_longest(planner, choice), long), _rates(planner, first)
    _tell(console, "At most, with every scenario until flat at its longest", [*most, *long], measured)
    run(long)
    trials = _of_the_set(planner.trials(choice.scenarios, choice.methods, choice.seeds))
    rates = _rates(planner, [*first, *long, *trials])
    spent = sum({trial.spec.key: rates.of_trial(trial) for trial in long}.values())
    fit = fitted(trials, rates, evidence.HOURS * HOUR * evidence.CORES - spent)
    _tell(console, "With the rounds that were measured", [*fit.trials, *long], rates)
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
    return _of_the_set(chain.from_iterable(each))


def _apart(trials: Sequence[Trial], long: Sequence[Trial]) -> list[Trial]:
    """The trials whose results do not come with those that measure the rounds."""
    given = {spec.key for one in long for spec in (*one.begins, one.spec.with_rounds(one.spec.rounds))}
    return [trial for trial in trials if trial.spec.key not in given]


def _of_the_set(trials: Iterable[Trial]) -> list[Trial]:
    return [trial for trial in trials if evidence.has(trial.method, trial.seed)]


def _rates(planner: Planner, trials: Sequence[Trial]) -> Rates:
    results = ((trial, finished(planner.paths, trial)) for trial in trials)
    return Rates.of((trial, result) for trial, result in results if result is not None)


def _tell(console: Console, words: str, trials: Sequence[Trial], rates: Rates) -> None:
    console.print(f"{words}:", soft_wrap=True)
    print_table(console, cost_table(trials, rates, evidence.CORES), stacked=False)
