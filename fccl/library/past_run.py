"""A finished run, found again: its folder, its settings with changes, and what is needed to work on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fccl.adapters.adapter import Adapter, load_adapter
from fccl.aggregation.rules import uses_weights
from fccl.config import Settings, group_of, load_settings
from fccl.data.shards import load_shard
from fccl.data.shards import require_unchanged as require_unchanged_data
from fccl.display.plain_text import printable
from fccl.display.words import nearest, plural
from fccl.errors import DataError, FederationError, SettingsError, no_run
from fccl.federation.replay import REBASING, CarriedLearning, ReplayedRun
from fccl.federation.rounds import Federation
from fccl.federation.run_evaluation import own_data
from fccl.federation.run_folder import RunFolder
from fccl.library.ignored import refuse_ignored
from fccl.library.narrow import ONCE, aggregation_rule, settings_of
from fccl.library.own_rules import CHOOSING
from fccl.library.setup import federation_of
from fccl.model.language_model import LanguageModel
from fccl.model.loading import Models
from fccl.paths import AfterPaths, DataPaths, LogPaths
from fccl.records.manifest import Manifest
from fccl.records.run import RunInfo, RunState
from fccl.registry import is_own, source_sha256
from fccl.specs import PHASES
from fccl.storage.locks import in_use
from fccl.training.engines import learner_for
from fccl.transports.in_process import InProcessTransport

CHANGEABLE = ("contribution", "aggregation")  # groups of settings that a replay may be given anew
_SHOWN_RUNS = 5
# Values of settings under which clients train in another way: kept updates say nothing of that.
_TRAINS_OTHERWISE = {"aggregation": ("scaffold", "fedprox"), "lora_aggregation": ("freeze_a", "fed_sb")}
_RETRAIN = "train anew with --retrain 1, or begin another run"


@dataclass(frozen=True, eq=False)
class PastRun:
    """A finished run of a log folder. `settings` are those that it was started with."""

    folder: RunFolder
    info: RunInfo
    state: RunState
    after: AfterPaths
    settings: Settings

    @property
    def logs(self) -> LogPaths:
        """Its files."""
        return self.folder.paths


def past_run(log_dir: Path, run: str, to: str, given: Mapping[str, object], may_replace: bool = False) -> PastRun:
    """The finished run in `log_dir`, an earlier one in `log_dir/runs/` by its id, or the one in the folder `run`.

    Raises `FederationError` when there is none or it is not finished. Raises `SettingsError` when it needs a class that
    `given`, the arguments of this very command, does not name. With `may_replace` they may name another rule instead.
    """
    root, paths = _found(log_dir, run, to)
    folder = RunFolder.at(paths.root)
    info, state = folder.recorded(to), folder.state_here()
    if not state.finished:
        raise FederationError(
            f"run {info.run_id} has {state.next_round} of {plural(state.total_rounds, 'round')}",
            hint="`fccl run --resume` goes on with it",
        )
    require_own_named(info, given, may_replace)
    return PastRun(folder, info, state, LogPaths(root).after(info.run_id), settings_of(info))


def _found(log_dir: Path, run: str, to: str) -> tuple[Path, LogPaths]:
    """The log folder that a run is in, and the run's own files."""
    here = LogPaths(log_dir)
    if not run:
        return log_dir, here
    if (here.archive / run).is_dir() and "/" not in run:
        return log_dir, LogPaths(here.archive / run)
    info = RunFolder.at(log_dir).info()
    if info is not None and info.run_id == run:
        return log_dir, here
    if LogPaths(Path(run)).run.is_file():
        return Path(run), LogPaths(Path(run))
    if "/" in run or not here.archive.is_dir():
        raise no_run(Path(run), to)
    known = sorted(path.name for path in here.archive.iterdir())
    guess = nearest(run, known)
    listed = ", ".join(known[-_SHOWN_RUNS:])
    raise FederationError(
        f"{log_dir} holds no run {printable(run, 100)}",
        hint=f"did you mean {guess}?" if guess else f"there are {listed}" if listed else "leave the name out",
    )


def require_own_named(info: RunInfo, given: Mapping[str, object], may_replace: bool) -> None:
    """Raises `SettingsError` when the run needs a class that the arguments do not name, or that has changed.

    A record may be anybody's, and to import a class is to run it.
    """
    for name in CHOOSING:
        path, told = info.settings.get(name, ""), str(given.get(name, ""))
        if not is_own(path) or (told and told != path and may_replace):
            continue
        flag = f"--{name.replace('_', '-')}"
        if told != path:
            instead = f", or another rule with {flag}" if may_replace else ""
            raise SettingsError(
                f"run {info.run_id} needs the class {printable(path)} as its {name.upper()}",
                hint=f"name it if you trust it, {flag} {printable(path)}{instead}",
            )
        if source_sha256(path) != info.rules.get(path):
            raise SettingsError(
                f"the file of {path} was changed since the run began",
                hint="put it back as it was, or name another rule",
            )


def changed(past: PastRun, given: Mapping[str, Any]) -> tuple[Settings, dict[str, str]]:
    """The run's settings with those of `given` that a replay may change, and the ones that are others now.

    Raises `SettingsError` for one that the chosen rules ignore, or under which clients would have trained otherwise.
    """
    told = {name: value for name, value in given.items() if group_of(Settings.model_fields[name]) in CHANGEABLE}
    settings = load_settings({**ONCE, **past.info.settings, **told})
    refuse_ignored(settings, told)
    if not uses_weights(settings.aggregation):
        settings = settings.model_copy(update={"contribution_mode": "uniform"})
    others = {name: str(getattr(settings, name)) for name in told}
    others = {name: value for name, value in others.items() if value != str(getattr(past.settings, name))}
    for name, values in _TRAINS_OTHERWISE.items():
        trained_so = name == "lora_aggregation" and past.settings.lora_aggregation == "fed_sb"
        if others.get(name) in values or (name in others and trained_so):
            raise SettingsError(
                f"{name.upper()}={others[name]}: its clients train in another way than those of this run did",
                hint=_RETRAIN,
            )
    aggregation_rule(settings).require(settings.round_plan().clients_per_round)
    return settings, others


@dataclass(frozen=True, eq=False)
class AtWork:
    """A past run with its model and its data at hand, the settings as they were asked for."""

    past: PastRun
    settings: Settings
    models: Models
    data: DataPaths
    manifest: Manifest

    @property
    def model(self) -> LanguageModel:
        """The run's model, loaded at its first use."""
        return self.models.of(self.settings.model_spec())

    @property
    def by_round(self) -> bool:
        """Whether a change of an update cannot be made from another adapter: its factors are of other directions."""
        return bool({self.settings.lora_aggregation, self.past.settings.lora_aggregation} & set(REBASING))

    def federation(self, without: frozenset[int] = frozenset()) -> Federation:
        """The federation of these settings under the run's id, whose draws pass over the clients of `without`."""
        made = federation_of(self.settings, self.model, self.data, self.manifest)
        known = {
            phase: {client: 0 if client in without else count for client, count in counts.items()}
            for phase, counts in made.known_samples.items()
        }
        plan = made.plan.model_copy(update={"min_clients": 1} if without else {})
        return replace(made, run_id=self.past.info.run_id, plan=plan, known_samples=known)

    def trainers(self) -> InProcessTransport:
        """The clients in this process, each with its shard; they train as they did in the run.

        Raises `DataError` where every client brings its own data, `FederationError` under differential privacy or
        masks.
        """
        if self.past.settings.secure_aggregation:
            raise FederationError(
                "SECURE_AGGREGATION=true: clients that train anew would show single updates",
                hint="begin another run: its clients mask their updates again",
            )
        if self.past.settings.dp_where != "none":
            raise FederationError(
                f"DP_WHERE={self.past.settings.dp_where}: clients that train anew release more than the run's ledger "
                "counts",
                hint="begin another run, whose own ledger counts it",
            )
        if self.manifest.spec.server_only:
            raise DataError("the clients' data is not here: nobody can train anew", hint="leave --retrain out")
        learner, at_once = learner_for(self.models, self.settings.client_ranks), self.settings.at_once
        return InProcessTransport(learner, lambda client: load_shard(self.data, client, self.manifest), (), at_once)

    def _require_own_rule(self) -> None:
        """Raises `SettingsError` where the server's training cannot be carried without a class that nobody named."""
        own = self.past.settings.aggregation
        if is_own(own) and self.settings.aggregation != own:
            raise SettingsError(
                f"the server trained what {printable(own)} made: without that class its training cannot be carried",
                hint=f"leave --aggregation at {printable(own)}",
            )

    def _start(self) -> Adapter:
        """The adapter that round 0 began with."""
        start = self.past.logs.start
        return load_adapter(start) if self.past.info.start_sha256 else self.model.initial_adapter(self.settings.seed)

    def require_updates(self) -> None:
        """Raises `FederationError` where a run keeps no update at all: the server knows, or has noised, their sum."""
        if self.past.settings.secure_aggregation:
            raise FederationError(
                "SECURE_AGGREGATION=true: no single update is known, so no round can be made again",
                hint="`fccl verify` checks what the run has",
            )
        if self.past.settings.dp_where == "server":
            raise FederationError(
                "DP_WHERE=server: nothing of a single client is kept, so no round can be made again",
                hint="`fccl verify` checks what the run has; a run with DP_WHERE=client keeps noised updates",
            )

    def replayed(
        self,
        without: frozenset[int] = frozenset(),
        by_round: bool = False,
        retrain_from: int | None = None,
        from_there: bool = False,
    ) -> ReplayedRun:
        """The run's rounds again, not begun yet. `retrain_from` is the first round whose clients train anew; with
        `from_there` nothing before it is made again, and it begins as it did in the run.
        """
        self.require_updates()
        anew, again = self.federation(without), self.federation()
        if again.learn is not None:
            self._require_own_rule()
            learning = CarriedLearning(self.past.logs, aggregation_rule(self.past.settings))
            again = replace(again, learn=replace(again.learn, learner=learning))
        return ReplayedRun(
            logs=self.past.logs,
            federation=replace(again, plan=anew.plan),
            total=self.past.state.total_rounds,
            early=self.past.state.early,
            without=without,
            declared={said.client_id: said for said in self.past.state.declared},
            by_round=by_round or self.by_round,
            retrain_from=retrain_from,
            from_there=from_there,
            start=self._start,
            remembers=self.settings.contribution_source == self.past.settings.contribution_source,
            trainers=None if retrain_from is None else self.trainers(),
            trained=anew,
        )


@contextmanager
def at_work(past: PastRun, settings: Settings, data_dir: Path | None = None) -> Iterator[AtWork]:
    """The run with its data, which stays as it is while the block runs. `data_dir` is where it lies now.

    Raises `DataError` or `StorageError` when it is not the data that the run was made with.
    """
    data = DataPaths(data_dir or past.settings.data_dir)
    with in_use(data.lock, f"the data in {data.root}/"):
        manifest = own_data(data, past.info)
        splits = [data.server_split(split, phase) for split in ("learn", "validation") for phase in PHASES]
        require_unchanged_data(data, manifest, splits)
        yield AtWork(past, settings, Models(), data, manifest)
