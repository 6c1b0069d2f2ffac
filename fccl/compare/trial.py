"""One trial: a scenario under a method with a seed. A real federation in this process, then the test split.

Trials of a scenario and seed are paired by construction. Every method starts from the same adapter, and is judged on
the same test examples. Its clients train on the same shards in the same order: their seeds come from the round and the
client alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from fccl.adapters.adapter import Adapter, load_adapter
from fccl.aggregation.protocol import Aggregation
from fccl.compare import aside
from fccl.compare.attacks import HostileLearner
from fccl.compare.beginnings import ended
from fccl.compare.collusion import Colluding
from fccl.compare.flat import is_flat
from fccl.compare.methods import MethodSettings
from fccl.compare.reference import Agreement, agreement
from fccl.compare.round_summaries import LEFT_OUT, summary, without
from fccl.compare.scoring import TestScores, TestSplit
from fccl.compare.server_view import known_to_server, specialised
from fccl.compare.update_cache import CachedLearner
from fccl.compare.values import Participant, RoundSummary, TrialResult, TrialSpec
from fccl.contribution.protocol import Weigher, Weighing
from fccl.contribution.reported import ContributionRule
from fccl.contribution.stretch import sent
from fccl.data.shards import ClientShard, load_shard
from fccl.errors import LOWER_RATE, AdapterError, FederationError
from fccl.evaluation.validation import ServerSplit, Validator
from fccl.federation.rounds import Federation
from fccl.federation.server_learning import ServerLearner
from fccl.federation.state import FederationState, RoundResult
from fccl.messages import ClientFailure, Given, Learner, Request
from fccl.model.language_model import LanguageModel, cpu_threads
from fccl.model.loading import Models
from fccl.paths import ComparePaths, DataPaths
from fccl.specs import PHASES
from fccl.storage.locks import made_once
from fccl.training.engines import learner_for
from fccl.transports.in_process import InProcessTransport
from fccl.transports.wrapped import WrappedTransport


@dataclass(frozen=True)
class Start:
    """The SFT rounds that all VA trials of a seed begin with."""

    spec: TrialSpec
    data: Path


@dataclass(frozen=True)
class Trial:
    """One trial to run, and its prepared folder. Trials with an equal spec have one result."""

    scenario: str
    method: str
    seed: int
    spec: TrialSpec
    data: Path
    start: Start | None = None  # in VA
    begins: tuple[TrialSpec, ...] = ()  # shorter trials that are its first rounds: their results come with its own


@dataclass(frozen=True, eq=False)
class Resources:
    """The resources that all trials of a process share. `weigher` and `aggregation` build what a method's settings ask
    for.
    """

    paths: ComparePaths
    model: LanguageModel
    weigher: Callable[[MethodSettings, Validator], Weigher]
    aggregation: Callable[[MethodSettings], Aggregation]
    _splits: dict[Hashable, Validator] = field(default_factory=dict)
    _tests: dict[Hashable, TestSplit] = field(default_factory=dict)

    @cached_property
    def learner(self) -> Learner:
        """The clients' training. It remembers the reference log-probabilities of every set of pairs by its content."""
        return learner_for(Models.holding(self.model))

    def split(self, data: DataPaths, split: ServerSplit, spec: TrialSpec) -> Validator:
        """A split of the server's, read, encoded and scored under its reference once for all trials that share it."""
        preference, batch_size = spec.train.preference, spec.eval_batch_size
        key = data.root, split, preference, batch_size, spec.train.threads
        if key not in self._splits:
            self._splits[key] = Validator.of(self.model, data, split, preference=preference, batch_size=batch_size)
        return self._splits[key]

    def test(self, data: DataPaths, spec: TrialSpec, start: Adapter) -> TestSplit:
        """The test split, in VA against the adapter that the rounds start from; once for all trials that share both."""
        preference, batch_size = spec.train.preference, spec.eval_batch_size
        key = data.root, spec.phase, preference, batch_size, spec.train.threads, start.sha256
        if key not in self._tests:
            self._tests[key] = TestSplit(self.model, data, spec.phase, preference, batch_size, start)
        return self._tests[key]


def run_trial(resources: Resources, trial: Trial) -> TrialResult:
    """Run one trial from its first round. A federation that breaks down is a result, not an error.

    Raises what the data and the disk raise.
    """
    return results_of(resources, trial)[-1]


def results_of(resources: Resources, trial: Trial) -> tuple[TrialResult, ...]:
    """The results that come with a trial's own, and its own last.

    Those are of the trials that it begins with, and for a run until flat of the trial of so many rounds.
    """
    started = time.process_time()
    with cpu_threads(trial.spec.train.threads):
        run = TrialRun(resources, trial.spec, DataPaths(trial.data), start_adapter(resources, trial))
        *begun, result = run.run(trial.begins)
    return (*begun, result.model_copy(update={"seconds": time.process_time() - started}))


def start_adapter(resources: Resources, trial: Trial) -> Adapter:
    """The adapter that the rounds start from: in SFT a fresh adapter of the seed; in VA what FedAvg makes of the clean
    SFT data, trained once.
    """
    fresh = resources.model.initial_adapter(trial.spec.plan.seed)
    if trial.start is None:
        return fresh
    path = resources.paths.start(trial.start.spec.key)
    trial_run = TrialRun(resources, trial.start.spec, DataPaths(trial.start.data), fresh)
    return made_once(path, lambda: _kept(path), lambda: _train_start(trial_run, path))


def _kept(path: Path) -> Adapter | None:
    """The adapter of a file, unless that is missing or damaged."""
    try:
        return load_adapter(path) if path.is_file() else None
    except AdapterError:
        return None


def _train_start(trial_run: TrialRun, path: Path) -> Adapter:
    """The adapter after all rounds, kept if training can go on from it.

    Raises `FederationError`; `AdapterError` where it has diverged.
    """
    rounds = list(trial_run.federation(trial_run.spec.clients, validated=False))
    if len(rounds) < trial_run.spec.plan.rounds_of("sft"):
        raise FederationError("the SFT rounds before the VA scenarios broke down", hint=LOWER_RATE)
    adapter = rounds[-1].state.adapter
    trial_run.validator("sft", adapter, None)
    adapter.save(path)
    return adapter


def union(shards: Sequence[ClientShard]) -> ClientShard:
    """One client with all the data, in the order of the text, so that it does not depend on who held what."""
    sft = sorted((one for shard in shards for one in shard.sft), key=lambda one: (one.instruction, one.response))
    va = sorted(
        (one for shard in shards for one in shard.va),
        key=lambda one: (one.instruction, one.preferred, one.dispreferred),
    )
    return ClientShard(0, tuple(sft), tuple(va))


@dataclass(frozen=True, eq=False)
class Only(WrappedTransport):
    """A transport that lets some clients take part. The others fail at once."""

    clients: frozenset[int]

    def ask(self, request: Request[Given], client_ids: Sequence[int]) -> Iterator[Given | ClientFailure]:
        """As `transport` does, for those who take part."""
        yield from (ClientFailure(client, LEFT_OUT) for client in client_ids if client not in self.clients)
        yield from super().ask(request, [client for client in client_ids if client in self.clients])


@dataclass(frozen=True, eq=False)
class TrialRun:
    """One trial at work: its data, the adapter that it starts from, and what goes wrong."""

    resources: Resources
    spec: TrialSpec
    data: DataPaths
    start: Adapter
    notes: list[str] = field(default_factory=list)

    def run(self, begins: Sequence[TrialSpec] = ()) -> tuple[TrialResult, ...]:
        """All rounds, then the test split: the results of the trials that it begins with, and its own."""
        if self.spec.way == "alone":
            return (self._alone(),)
        results = list(self.federation(self.spec.clients)) if self.spec.way != "base" else []
        before = [None, *results]
        rounds = [summary(one, last, self._agreement(one)) for last, one in zip(before, results, strict=False)]
        begins = ended(self.spec, begins, [one.loss for one in rounds])
        return (*(self._begun(spec, results, rounds) for spec in begins), self._judged(results, rounds))

    def _begun(self, spec: TrialSpec, results: Sequence[RoundResult], rounds: Sequence[RoundSummary]) -> TrialResult:
        """The result of a trial that is the first rounds of this one, as it would have been alone."""
        first = results[: spec.rounds]
        in_time = [note for result in first for note in without(result.record)]
        notes = self.notes if len(first) < spec.rounds else in_time
        return replace(self, spec=spec, notes=list(notes))._judged(first, rounds[: spec.rounds])

    def _judged(self, results: Sequence[RoundResult], rounds: Sequence[RoundSummary]) -> TrialResult:
        """The figures of these rounds and of the adapter that they end with."""
        final = results[-1].state.adapter if results else self.start
        records = [result.record for result in results]
        scores = self._score(final)
        return self._result(
            [scores] if scores else [],
            training_seconds=sum(said.seconds for record in records for said in record.contributions),
            weighing_seconds=sum(record.verification.seconds for record in records if record.verification),
            rounds=tuple(rounds),
            adapter_sha256=final.sha256,
            learn_loss=self._learn_loss(final),
            **(aside.measured(self.spec, self.test, scores) if scores else {}),
        )

    def _learn_loss(self, adapter: Adapter) -> float | None:
        """Of the whole learn split; None where nobody asked, and where it is not finite."""
        if not self.spec.tuning:
            return None
        try:
            return self.learn(self.spec.phase, adapter, self.start if self.spec.phase == "va" else None).loss
        except AdapterError:
            return None

    def _agreement(self, result: RoundResult) -> Agreement | None:
        """The part of each change in the mean, held against its exact Shapley value.

        The values are of the whole learn split, whatever of it the scenario leaves to the server. None where nobody
        asked, and for a rule that takes parts of each update.
        """
        if not self.spec.agreement or result.counted is None:
            return None
        record, task = result.record, result.inputs.task
        heard = {update.client_id: update.with_frozen(task.trained) for update in result.inputs.arrived}
        counted = sent(Weighing(result.counted, record.scores, stretch=record.stretch))
        updates = [heard[client] for client in record.clients]
        return agreement(self.resources.split(self.data, "learn", self.spec), task, updates, counted)

    def _alone(self) -> TrialResult:
        """As many federations of one as there are clients; the figures are their means."""
        finals, seconds = {}, 0.0
        for client in self.spec.clients:
            results = list(self.federation([client], validated=False))
            finals[client.client_id] = self._score(results[-1].state.adapter if results else self.start)
            seconds += sum(said.seconds for result in results for said in result.record.contributions)
        scores = {client: found for client, found in finals.items() if found}
        by_client = {client: found.loss for client, found in scores.items()}
        return self._result(
            list(scores.values()) if len(scores) == len(finals) else [], training_seconds=seconds, by_client=by_client
        )

    def federation(self, clients: Sequence[Participant], validated: bool = True) -> Iterator[RoundResult]:
        """The rounds of the trial's phase among these clients. Clients that are excluded from one are noted, and so is
        an end before the last.

        `validated`: whether each has the loss on the server's validation split, which costs a pass over it.
        """
        plan, sft = self.spec.plan, self.spec.phase == "sft"
        attacks = {client.client_id: client.attack for client in clients}
        shards = self.shards
        honest = InProcessTransport(HostileLearner(self._learner(), attacks), lambda client: shards[client])
        transport = Only(Colluding(honest, attacks), frozenset(attacks))
        federation = Federation(
            run_id=self.spec.key,
            plan=plan,
            model=self.spec.model,
            train={"sft": self.spec.train, "va": self.spec.train},
            rule=self._weigher(),
            aggregation=self.resources.aggregation(self.spec.settings),
            validate=self.validator if validated else None,
            learn=self._server_learner(),
        )
        first_va = plan.first_round("va")
        state = FederationState(0, self.start) if sft else FederationState(first_va, self.start, self.start)
        losses: list[float] = []
        try:
            for result in federation.run(state, transport):
                self.notes.extend(without(result.record))
                yield result
                losses += [result.record.validation.loss] if result.record.validation else []
                over = self.spec.until_flat and is_flat(losses)
                if over or result.state.next_round in (first_va, plan.total_rounds):
                    return
        except (FederationError, AdapterError) as error:
            self.notes.append(f"ended early: {error}")

    @cached_property
    def shards(self) -> dict[int, ClientShard]:
        """Of those who take part."""
        if self.spec.way == "centralised":
            everybody = range(len(list(self.data.clients.glob("client_*_sft.jsonl"))))
            return {0: union([load_shard(self.data, client) for client in everybody])}
        taking_part = [client.client_id for client in self.spec.clients]
        held = [client for client in taking_part if not self._is_server(client)]
        shards = [load_shard(self.data, client) for client in held]
        dealt = specialised(shards, self.spec.specialist) if self.spec.specialist and shards else shards
        server = set(taking_part) - set(held)
        return {shard.client_id: shard for shard in dealt} | {
            client: replace(self.learn_examples, client_id=client) for client in server
        }

    def _is_server(self, client: int) -> bool:
        """Whether this is the server itself, which takes part with its own examples."""
        return self.spec.way == "server" or not self.data.shard(client, self.spec.phase).is_file()

    @cached_property
    def learn_examples(self) -> ClientShard:
        """The part of its learn split that the server has, as a shard to train on."""
        return ClientShard(0, tuple(self.learn.sft), tuple(self.learn.va))

    @property
    def validator(self) -> Validator:
        """The server's validation split."""
        return self.resources.split(self.data, "validation", self.spec)

    @cached_property
    def learn(self) -> Validator:
        """The server's learn split as far as the scenario leaves it: what weights may use."""
        return known_to_server(self.resources.split(self.data, "learn", self.spec), self.spec)

    @property
    def test(self) -> TestSplit:
        """The scores on the test split: in VA against the adapter that the rounds start from."""
        return self.resources.test(self.data, self.spec, self.start)

    def _learner(self) -> Learner:
        resources, spec = self.resources, self.spec
        return CachedLearner(
            resources.learner, resources.paths.updates, self.start.sha256, spec.model_sha256, spec.versions
        )

    def _server_learner(self) -> ServerLearner | None:
        if self.spec.learn_train is None:
            return None
        specs = dict.fromkeys(PHASES, self.spec.learn_train)
        return ServerLearner(self._learner(), self.learn_examples, specs)

    def _weigher(self) -> Weigher:
        return (
            self.resources.weigher(self.spec.settings, self.learn)
            if self.spec.settings
            else ContributionRule(mode="fedavg")
        )

    def _score(self, adapter: Adapter) -> TestScores | None:
        try:
            return self.test.score(adapter)
        except AdapterError as error:
            self.notes.append(str(error))
            return None

    def _result(self, scores: Sequence[TestScores], **figures: object) -> TrialResult:
        found = TestScores.mean(scores) if scores else None
        vectors = {
            name: tuple(getattr(found, name).tolist()) if found else ()
            for name in ("losses", "units", "right", "decided")
        }
        blank: dict[str, object] = {
            "spec": self.spec,
            "seconds": 0.0,
            "weighing_seconds": 0.0,
            "trouble": tuple(dict.fromkeys(self.notes)),
        }
        return TrialResult.model_validate(blank | vectors | figures)
