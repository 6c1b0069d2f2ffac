"""From scenarios, methods and seeds to trials: what is to be run, on which data, and by what each result is known."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fccl.compare.beginnings import beginnings
from fccl.compare.flat import MOST_ROUNDS
from fccl.compare.methods import METHODS, Method, MethodSettings
from fccl.compare.scenarios import Scenario
from fccl.compare.store import finished
from fccl.compare.trial import Start, Trial, union
from fccl.compare.values import WHOLE, Participant, TrialSpec
from fccl.contribution.shapley import MOST_CLIENTS
from fccl.data.examples import SftExample, read_examples
from fccl.data.prepare import manifest_matches, prepare
from fccl.data.shards import load_shard, read_manifest
from fccl.data.sources import digest_of
from fccl.paths import ComparePaths, DataPaths
from fccl.records.comparison import FEDAVG, ORACLE
from fccl.records.evaluation import FEWEST_FOR_A_VERDICT
from fccl.records.manifest import Manifest
from fccl.registry import source_sha256
from fccl.specs import DataSpec, ModelSpec, Phase, RoundPlan, TrainSpec, named_seed
from fccl.storage.locks import alone, one_at_a_time

# Of the sources whose formula has changed: a trial of an older one has another key.
FORMULAS = {"verified": 2, "leave_one_out": 2, "shapley": 2, "tempered": 2}


@dataclass(frozen=True)
class Design:
    """The settings that stay the same over a comparison."""

    data: DataSpec
    model: ModelSpec
    model_sha256: str
    train: Callable[[Phase, MethodSettings], TrainSpec]  # as `fccl run` trains with these settings
    learn: Callable[[Phase, MethodSettings], TrainSpec | None]  # and as its server does
    plan: RoundPlan  # everybody takes part in every round
    settings: MethodSettings  # by name, what methods may read of a person's settings
    versions: Mapping[str, str]
    eval_batch_size: int
    agreement: bool = False  # whether rounds' weights are held against exact Shapley values
    tuning: bool = False  # whether the loss of final adapters on the learn split is told


@dataclass
class Planner:
    """Makes the trials of a comparison. Prepares each data folder when it is first asked for; `tell` hears of it."""

    design: Design
    paths: ComparePaths
    tell: Callable[[str], None] = lambda line: None
    _unions: dict[str, str] = field(default_factory=dict)
    _manifests: dict[str, Manifest] = field(default_factory=dict)

    def trials(self, scenarios: Sequence[Scenario], methods: Sequence[Method], seeds: Sequence[int]) -> Iterator[Trial]:
        """Seed by seed, so that a comparison that is stopped has whole seeds. Where nobody is bad there is no oracle;
        where nobody colludes nobody is out of bounds, and no method without them.

        Raises what preparing data raises.
        """
        for seed in seeds:
            for scenario in scenarios:
                yield from (self.trial(scenario, method, seed) for method in methods if _applies(method, scenario))

    def longest(self, scenario: Scenario, methods: Sequence[Method], seeds: Sequence[int]) -> Iterator[Trial]:
        """The trials of one scenario with as many rounds as there can be: what they cost at most."""
        rounds = MOST_ROUNDS if scenario.until_flat else self.design.plan.fed_rounds
        for seed in seeds:
            yield from (self._trial(scenario, method, seed, rounds) for method in methods if _applies(method, scenario))

    def trial(self, scenario: Scenario, method: Method, seed: int) -> Trial:
        """One trial. Raises `LookupError` where FedAvg has to be flat first and `measure` is not finished."""
        rounds = self.rounds(scenario, seed) if scenario.until_flat else self.design.plan.fed_rounds
        return self._trial(scenario, method, seed, rounds)

    def measure(self, scenario: Scenario, seed: int) -> Trial:
        """The trial that finds how many rounds a scenario and seed has until FedAvg of the honest clients is flat.

        Its first rounds are the trial of as many rounds as others have.
        """
        method = METHODS[ORACLE if scenario.has_bad_clients else FEDAVG]
        trial = self._trial(scenario, method, seed, MOST_ROUNDS)
        spec = trial.spec.model_copy(update={"until_flat": True, "aside": ""})
        return replace(trial, spec=spec, begins=beginnings(spec, [spec.with_rounds(self.design.plan.fed_rounds)]))

    def rounds(self, scenario: Scenario, seed: int) -> int:
        """The number that `measure` has found. Raises `LookupError` before that is finished."""
        found = finished(self.paths, self.measure(scenario, seed))
        if found is None:
            raise LookupError(f"{scenario.name}, seed {seed}: how many rounds FedAvg needs was not measured")
        return max(1, len(found.rounds))

    def _trial(self, scenario: Scenario, method: Method, seed: int, rounds: int) -> Trial:
        clean = scenario.data_spec(self.design.data, seed, spoilt=False)
        data = clean if method.clean else scenario.data_spec(self.design.data, seed)
        start = Start(self._start_spec(clean, seed), self._data(clean).root) if scenario.phase == "va" else None
        spec = self._spec_of(scenario, method, data, seed, start.spec.key if start else "", rounds)
        return Trial(scenario.name, method.name, seed, spec, self._data(data).root, start)

    def bad_clients(self, scenario: Scenario, seed: int) -> tuple[int, ...]:
        """The bad clients of a trial."""
        return scenario.bad_clients(self.design.plan.num_clients, seed)

    def manifest(self, spec: DataSpec) -> Manifest:
        """Of the prepared data; prepares it when it is not there."""
        name = _name(spec)
        if name not in self._manifests:
            paths = DataPaths(self.paths.data(name))
            with one_at_a_time(paths.manifest):
                if not manifest_matches(paths, spec):
                    self.tell(f"preparing data: {_words(spec)}")
                    with alone(paths.lock, f"the data in {paths.root}/"):
                        prepare(spec, paths)
            self._manifests[name] = read_manifest(paths)
        return self._manifests[name]

    def _data(self, spec: DataSpec) -> DataPaths:
        self.manifest(spec)
        return DataPaths(self.paths.data(_name(spec)))

    def _spec_of(
        self, scenario: Scenario, method: Method, data: DataSpec, seed: int, start: str, rounds: int
    ) -> TrialSpec:
        design, files, phase = self.design, self.manifest(data).files, scenario.phase
        clients = design.plan.num_clients
        plan = self._plan(scenario, method, seed)
        person = {**design.settings, "seed": seed}
        settings = method.settings_for(clients, phase) | {name: person[name] for name in method.reads}
        plan = plan.model_copy(
            update={"max_update_ratio": settings["max_update_ratio"]} if "max_update_ratio" in settings else {}
        )
        return TrialSpec(
            versions=dict(design.versions),
            model=design.model,
            model_sha256=design.model_sha256,
            phase=phase,
            train=design.train(phase, settings),
            plan=plan,
            start=start,
            clients=self._participants(scenario, method, data, seed),
            way=method.way,
            settings=settings,
            validation=files[f"server/validation_{phase}.jsonl"],
            test=files[f"server/test_{phase}.jsonl"],
            learn=files[f"server/learn_{phase}.jsonl"] if method.uses_learn else "",
            learn_train=design.learn(phase, settings),
            eval_batch_size=design.eval_batch_size,
            rules={path: source_sha256(path) for path in method.own},
            server=scenario.server if method.uses_learn else WHOLE,
            aside=scenario.aside,
            specialist=self._topic(scenario, data, seed),
            formula=FORMULAS.get(str(settings.get("contribution_source")), 1),
            agreement=design.agreement and method.way == "federated" and clients <= MOST_CLIENTS,
            tuning=design.tuning,
        ).with_rounds(rounds)

    def _plan(self, scenario: Scenario, method: Method, seed: int) -> RoundPlan:
        """The plan of a trial, of who is there in its rounds. A client alone is there in all of them."""
        together = self.design.plan.num_clients + method.server_takes_part
        clients = 1 if method.way in ("centralised", "server") else together
        present = max(1, round(scenario.present * clients)) if method.way == "federated" else clients
        changes = {"seed": seed, "num_clients": clients, "clients_per_round": present}
        return self.design.plan.model_copy(update=changes)

    def _topic(self, scenario: Scenario, data: DataSpec, seed: int) -> str:
        """The topic that the first client alone holds, of those with enough test examples; drawn from the seed."""
        if not scenario.specialist:
            return ""
        examples = read_examples(self._data(data).server_split("test", "sft"), SftExample)
        topics = Counter(example.topic for example in examples)
        enough = sorted(topic for topic, count in topics.items() if topic and count >= FEWEST_FOR_A_VERDICT)
        return random.Random(named_seed(seed, "specialist")).choice(enough or sorted(topics))

    def _participants(self, scenario: Scenario, method: Method, spec: DataSpec, seed: int) -> tuple[Participant, ...]:
        """Those who train in a trial: its clients, all their data as one, the server, or clients and server."""
        if method.way == "centralised":
            return (Participant(client_id=0, shard=self._union(spec, scenario.phase)),)
        learn = self.manifest(spec).files[f"server/learn_{scenario.phase}.jsonl"]
        if method.way == "server":
            return (Participant(client_id=0, shard=learn),)
        server = Participant(client_id=self.design.plan.num_clients, shard=learn)
        return (*self._clients(scenario, method, spec, seed), *([server] if method.server_takes_part else ()))

    def _clients(self, scenario: Scenario, method: Method, spec: DataSpec, seed: int) -> tuple[Participant, ...]:
        """The clients of a trial, and the part of each.

        An attack on the report alone is none where nobody believes reports.
        """
        if method.way == "base":
            return ()
        files, bad = self.manifest(spec).files, self.bad_clients(scenario, seed)
        others = scenario.others(self.design.plan.num_clients, seed)
        found = []
        for client in range(self.design.plan.num_clients):
            if client in bad and (method.without_bad or method.way == "alone"):
                continue
            attack = scenario.attack_of(client, others)
            if attack == "loss_forger" and not method.believes_losses:
                attack = "none"
            found.append(
                Participant(
                    client_id=client, shard=files[f"clients/client_{client}_{scenario.phase}.jsonl"], attack=attack
                )
            )
        return tuple(found)

    def _start_spec(self, clean: DataSpec, seed: int) -> TrialSpec:
        """FedAvg of the clean SFT data."""
        first = Scenario("start", "the SFT rounds before VA")
        spec = self._spec_of(first, METHODS[FEDAVG], clean, seed, "", self.design.plan.fed_rounds)
        return spec.model_copy(update={"agreement": False, "tuning": False})  # one start, whatever is asked of trials

    def _union(self, spec: DataSpec, phase: Phase) -> str:
        """A hash of all clients' data together."""
        name = f"{_name(spec)} {phase}"
        if name not in self._unions:
            shards = [load_shard(self._data(spec), client) for client in range(spec.partition.num_clients)]
            self._unions[name] = digest_of(union(shards).of(phase))
        return self._unions[name]


def _applies(method: Method, scenario: Scenario) -> bool:
    """No oracle where nobody is bad; no method without the bound where nobody is out of bounds."""
    return (scenario.has_bad_clients or not method.without_bad) and (scenario.collude or not method.without_bound)


def _name(spec: DataSpec) -> str:
    return hashlib.sha256(spec.model_dump_json().encode()).hexdigest()[:16]


def _words(spec: DataSpec) -> str:
    split = spec.partition
    parts = [f"seed {split.seed}", "IID" if split.alpha is None else f"alpha {split.alpha:g}"]
    if split.size_skew != 1:
        parts.append(f"sizes 1:{split.size_skew:g}")
    if spec.noisy_clients:
        parts.append(f"{spec.noise_kind} at clients {', '.join(map(str, spec.noisy_clients))}")
    return ", ".join(parts)
