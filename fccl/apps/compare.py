"""`fccl compare`: the same scenarios under every method, and what can be said of the differences."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from fccl import __version__
from fccl.aggregation.protocol import Aggregation
from fccl.apps import compare_tune
from fccl.apps.compare_choice import Choice, chosen, unread_line, with_defaults
from fccl.apps.compare_plan import known, to_run
from fccl.apps.console import plain_console, telling
from fccl.apps.output import terminate_as_interrupt
from fccl.apps.terminal_tables import QUIET, print_table
from fccl.compare import evidence, pictures
from fccl.compare.cost import Fit
from fccl.compare.methods import MethodSettings
from fccl.compare.plan import Design, Planner
from fccl.compare.scenarios import Scenario
from fccl.compare.store import adopt, finished, to_do, unfinished
from fccl.compare.summary import Options, rows
from fccl.compare.trial import Resources, Trial
from fccl.compare.values import TrialResult
from fccl.compare.workers import run_all
from fccl.config import Settings
from fccl.contribution.protocol import Weigher
from fccl.data.split import SPLITS
from fccl.display.plain_text import one_line
from fccl.errors import FcclError
from fccl.evaluation.validation import Validator
from fccl.extras import REPORT, require_extra
from fccl.library.narrow import aggregation_rule, begun, data_spec, each_alone, weigher
from fccl.library.places import require_apart
from fccl.model.language_model import LanguageModel
from fccl.model.loading import load_model
from fccl.model.weights import weights_sha256
from fccl.paths import ComparePaths, LogPaths
from fccl.records.comparison import Comparison, MethodInfo, ScenarioInfo
from fccl.specs import PHASES, Phase, TrainSpec
from fccl.storage.files import write_bytes, write_text
from fccl.storage.locks import sweep_locks
from fccl.storage.temporary import sweep
from fccl.view import comparison_tables as tables
from fccl.view.agreement import agreement_tables, effective_tables

Found = dict[str, dict[str, list[tuple[Trial, TrialResult]]]]  # by scenario, then by method: one a seed
ROOMY = 132  # columns of a terminal that has room for intervals beside figures


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Run what is not finished, then judge, write and show. Returns the exit status."""
    console = plain_console(None if sys.stdout.isatty() else ROOMY)
    require_extra("dashboard", "a comparison's page", REPORT)
    settings = each_alone(settings, options.given, "a comparison trains its clients one after another")
    settings = begun(with_defaults(settings, options.quick), telling(console))
    choice = chosen(settings, options)
    if said := unread_line(options.given, choice):
        console.print(said, soft_wrap=True)
    paths = ComparePaths(Path(options.out)) if options.out else LogPaths(settings.log_dir).compare
    require_apart(settings, ("log_dir",), str(paths.root), LogPaths(settings.log_dir).compare.root)
    tidy(paths)
    asked = {"agreement": options.agreement, "tuning": options.tune}
    planner = Planner(
        design(settings, load_model(settings.model_spec()), choice.jobs, **asked),
        paths,
        lambda line: console.print(Text(one_line(line), "dim")),
    )
    run = partial(run_trials, console, paths, partial(resources, settings, paths), choice.jobs)
    fit = known(planner, choice) if options.tables_only else ran(console, planner, choice, run)
    if options.tune:
        compare_tune.show(console, [(trial, result) for trial in fit.trials if (result := finished(paths, trial))])
    else:
        console.print(Text("drawing", "dim"))
        conclude(console, paths, compared(settings, planner, choice, fit))
    return 0


def ran(console: Console, planner: Planner, choice: Choice, run: Callable[[Sequence[Trial]], None]) -> Fit:
    """All trials of a choice, finished. Raises what planning and running them raises."""
    trials = planner.paths.trials
    with terminate_as_interrupt():
        try:
            fit = to_run(console, planner, choice, run)
            run(fit.trials)
        except (KeyboardInterrupt, FcclError):
            if trials.is_dir():
                console.print(
                    f"Stopped. Finished trials are kept in {trials}/; the same command goes on with the others.",
                    soft_wrap=True,
                )
            raise
    return fit


def conclude(console: Console, paths: ComparePaths, comparison: Comparison) -> None:
    """Write the comparison and show it. Raises `StorageError`."""
    write(paths, comparison)
    show(console, comparison)
    console.print(
        f"Written to {paths.root}/: index.html, table.md, results.json, summary.png, gaps.png, weights_*.png, "
        "loss_*.png",
        soft_wrap=True,
    )


def tidy(paths: ComparePaths) -> None:
    """Clear away what killed comparisons have left half-written; what a living one is writing stays.

    Finished trials of version 0.1 move to the folder that they have now.
    """
    adopt(paths)
    for folder in (paths.root, paths.trials, paths.updates, paths.start("").parent, *paths.data("").parent.glob("*")):
        sweep(folder)
        sweep_locks(folder)


def design(settings: Settings, model: LanguageModel, jobs: int, **asked: bool) -> Design:
    """The settings that all trials share, and what is `asked` of them beyond the test loss.

    Each of several processes has one thread, so that none waits for another.
    """
    threads = settings.threads or (1 if jobs > 1 else torch.get_num_threads())
    packages = ("torch", "transformers", "peft", "tokenizers", "numpy")
    everybody = {
        "clients_per_round": settings.num_clients,
        "min_clients": 1,
        "sft_rounds": None,
        "va_rounds": None,
        "patience": 0,
        "result_round": "last",
    }  # a draw may be of bad clients alone, and then there is no oracle
    return Design(
        data=data_spec(settings),
        model=settings.model_spec(),
        model_sha256=weights_sha256(model),
        train=partial(train_of, settings.model_copy(update={"threads": threads})),
        learn=partial(learn_of, settings.model_copy(update={"threads": threads})),
        plan=settings.round_plan().model_copy(update=everybody),
        settings=settings.model_dump(mode="json"),
        versions={"fccl": __version__} | {name: version(name) for name in packages},
        eval_batch_size=settings.eval_batch_size,
        **asked,
    )


def train_of(settings: Settings, phase: Phase, chosen: MethodSettings) -> TrainSpec:
    """Training as `fccl run` makes it of these settings."""
    return settings.model_copy(update=dict(chosen)).train_spec(phase)


def learn_of(settings: Settings, phase: Phase, chosen: MethodSettings) -> TrainSpec | None:
    """Server learning as `fccl run` makes it of these settings; none where the method does not choose it."""
    return settings.model_copy(update={"learn_epochs": 0, **chosen}).learn_spec(phase)


def resources(settings: Settings, paths: ComparePaths) -> Resources:
    """The resources that a process needs to run trials."""
    return Resources(
        paths, load_model(settings.model_spec()), partial(weigher_of, settings), partial(aggregation_of, settings)
    )


def weigher_of(settings: Settings, chosen: MethodSettings, learn: Validator) -> Weigher:
    """Weights as `fccl run` makes them of these settings."""
    return weigher(settings.model_copy(update=dict(chosen)), learn)


def aggregation_of(settings: Settings, chosen: MethodSettings) -> Aggregation:
    """And so the aggregation rule."""
    return aggregation_rule(settings.model_copy(update=dict(chosen)))


def run_trials(
    console: Console, paths: ComparePaths, make_resources: partial[Resources], jobs: int, trials: Sequence[Trial]
) -> None:
    """Run the trials that are not finished, and say how far it is."""
    if not trials:
        return
    left, waiting = to_do(paths, trials), len(unfinished(paths, trials))
    different = len({trial.spec.key for trial in trials})
    text = f"{different} different trial{'s' * (different != 1)}, {different - waiting} finished before."
    shared = f" The {waiting} others are {len(left)} runs: some begin like others." if len(left) < waiting else ""
    console.print(text + shared, soft_wrap=True)
    if not left:
        return
    with _progress(console, len(left)) as tell:
        for trial, result in run_all(left, make_resources, jobs):
            tell(trial, result)


@contextmanager
def _progress(console: Console, count: int) -> Iterator[Callable[[Trial, TrialResult], None]]:
    """A line for every trial; on a terminal a bar below them, with the time left."""
    done = 0
    columns = (
        TextColumn("trials"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TextColumn("left"),
    )
    with Progress(
        *columns,
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
        speed_estimate_period=3600,
    ) as bar:
        task: TaskID = bar.add_task("trials", total=count)

        def tell(trial: Trial, result: TrialResult) -> None:
            nonlocal done
            done += 1
            loss = "not finite" if result.loss is None else f"test loss {result.loss:.4f}"
            each = (
                f" (of each client {min(alone):.4f} to {max(alone):.4f})"
                if (alone := result.by_client.values())
                else ""
            )
            trouble = f" ({'; '.join(result.trouble)})" if result.trouble else ""
            text = (
                f"{done:>4}/{count} {trial.scenario} · {trial.method} · seed {trial.seed}: {loss}{each}, "
                f"{result.seconds:.0f} s{trouble}"
            )
            console.print(Text(one_line(text)), soft_wrap=True)
            bar.advance(task)

        yield tell


def compared(settings: Settings, planner: Planner, choice: Choice, fit: Fit) -> Comparison:
    """All rows, from the finished trials."""
    judging = Options(planner.design.plan.num_clients, settings.bootstrap_samples, settings.seed)
    found: Found = {}
    for trial in fit.trials:
        result = finished(planner.paths, trial)
        if result is not None:
            found.setdefault(trial.scenario, {}).setdefault(trial.method, []).append((trial, result))
    scenarios = [scenario for scenario in choice.scenarios if scenario.name in found]
    clients = planner.design.plan.num_clients
    manifest = planner.manifest(choice.scenarios[0].data_spec(planner.design.data, choice.seeds[0]))
    names: dict[Phase, str] = {"sft": "instructions", "va": "preference pairs"}
    examples = {f"{names[phase]}, {split}": manifest.counts[split][phase] for phase in PHASES for split in SPLITS}
    return Comparison(
        model=settings.model_name,
        settings={name: str(value) for name, value in settings.model_dump().items()},
        seeds=tuple(seed for seed in choice.seeds if any(trial.seed == seed for trial in fit.trials)),
        num_clients=clients,
        rounds=planner.design.plan.fed_rounds,
        examples=examples,
        scenarios=tuple(_info(planner, scenario, found[scenario.name]) for scenario in scenarios),
        methods=tuple(
            MethodInfo(
                name=method.name,
                title=method.title,
                settings=method.settings_for(clients),
                tuned={phase: dict(values) for phase, values in method.tuned.items()},
            )
            for method in choice.methods
        ),
        rows=tuple(row for scenario in scenarios for row in rows(scenario, found[scenario.name], judging)),
        bootstrap_samples=settings.bootstrap_samples,
        pairs=evidence.pairs(_results(found)) if choice.primary else (),
        not_run=fit.left_out,
    )


def _results(found: Found) -> dict[str, dict[str, list[TrialResult]]]:
    return {
        scenario: {method: [result for _, result in pairs] for method, pairs in methods.items()}
        for scenario, methods in found.items()
    }


def _info(
    planner: Planner, scenario: Scenario, found: Mapping[str, Sequence[tuple[Trial, TrialResult]]]
) -> ScenarioInfo:
    trials = [trial for trial, _ in max(found.values(), key=len)]  # of a method that has all seeds
    return ScenarioInfo(
        name=scenario.name,
        title=scenario.title,
        phase=scenario.phase,
        bad_clients=len(planner.bad_clients(scenario, trials[0].seed)),
        aside=scenario.aside,
        rounds=tuple(trial.spec.rounds for trial in trials) if scenario.until_flat else (),
    )


def write(paths: ComparePaths, comparison: Comparison) -> None:
    """Results, table, pictures, page. Raises `StorageError`."""
    from fccl.pages.report.comparison import page

    write_text(paths.table, tables.to_markdown(comparison, _command()))
    drawn = pictures.drawn(comparison)
    files = {paths.summary: pictures.summary(comparison), paths.gaps: drawn.gaps}
    files |= {paths.weights(name): picture for name, picture in drawn.weights.items()}
    files |= {paths.loss(name): picture for name, picture in drawn.losses.items()}
    for path, picture in files.items():
        if picture is not None:
            write_bytes(path, picture)
    write_text(paths.page, page(comparison, drawn, pictures.drawn(comparison, wide=False), _command()))
    write_text(paths.results, comparison.model_dump_json(indent=1) + "\n")


def _command() -> str:
    """The command as it was typed."""
    return " ".join(["fccl", *sys.argv[1:]])


def show(console: Console, comparison: Comparison) -> None:
    """A table for every scenario, then all of them beside each other."""
    scenarios = (table.without_empty_columns() for table in tables.scenario_tables(comparison))
    weights = (*effective_tables(comparison), *agreement_tables(comparison))
    tail = (*weights, tables.matrix(comparison), *tables.pair_tables(comparison))
    for table in (*scenarios, *tail):
        print_table(console, table, stacked=console.width < ROOMY)
    for line in (*tables.lead(comparison), *tables.notes(comparison)):
        console.print(Text(one_line(line), QUIET))
