"""A federation with differential privacy: what a round releases, what its record says, when it ends."""

import dataclasses
import math
import shutil
from itertools import islice

import pytest
import torch

from fccl.adapters.adapter import load_adapter
from fccl.aggregation.rules import aggregation
from fccl.contribution.reported import ContributionRule
from fccl.errors import FederationError
from fccl.federation.privacy import ClientNoise
from fccl.federation.run import Run
from fccl.federation.run_folder import RunFolder
from fccl.federation.server_noise import ServerNoise
from fccl.messages import ClientUpdate, FitTask
from fccl.privacy.accountant import accounting_of
from fccl.privacy.secrets import secret_of
from fccl.privacy.spec import PrivacySpec
from fccl.privacy.spent import LOST, Release, Spent
from fccl.records.run import RoundRecord
from fccl.storage.reading import read_records
from fccl.testing.toy import MODEL, START, TRAIN, ToyLearner, federation, shard
from fccl.tracking.listener import RunListener
from fccl.training.private import PrivateLearner
from fccl.transports.in_process import InProcessTransport

SPEC = PrivacySpec(where="client", clip=0.5, noise=4.0, epsilon=50.0, delta=1e-5)
UNIFORM = ContributionRule(mode="uniform")


def at_server(**changes):
    return SPEC.model_copy(update={"where": "server"} | changes)


def client_noise(spec=SPEC, told=None, **changes):
    fed = federation(rule=UNIFORM, **changes)
    heard = (lambda line: None) if told is None else told.append
    return dataclasses.replace(fed, privacy=ClientNoise(spec, fed.plan), tell=heard)


def server_noise(folder, spec=None, rule="fedavg", **changes):
    fed = federation(rule=UNIFORM, aggregation=aggregation(rule), **changes)
    return dataclasses.replace(fed, privacy=ServerNoise(spec or at_server(), fed.plan, folder))


@pytest.fixture
def transport(tmp_path):
    learner = PrivateLearner(ToyLearner(), lambda client: tmp_path / "state" / f"client_{client}")
    return InProcessTransport(learner, shard)


def results(fed, transport, state=START):
    if fed.privacy is not None:
        fed.privacy.begin("run", 0, resumed=False)
    return list(fed.run(state, transport))


def test_clients_that_add_noise_are_weighed_by_what_is_noised_and_say_nothing_else(transport):
    found = results(client_noise(), transport)
    for number, result in enumerate(found):
        record = result.record
        assert record.clients == (0, 1, 2, 3)
        assert record.weights == (0.25,) * 4
        assert record.contributions == ()
        said = record.privacy
        assert (said.where, said.relation, said.accountant, said.amplified) == ("client", "replace one", "PLD", False)
        assert [(each.client_id, each.releases) for each in said.clients] == [(k, number + 1) for k in range(4)]
        assert said.epsilon == pytest.approx(accounting_of(SPEC, 1, 1).epsilon(number + 1))
    assert RoundRecord.model_validate_json(found[-1].record.model_dump_json()) == found[-1].record


def test_the_run_ends_before_the_budget_is_passed_and_its_adapter_is_the_last_one(transport):
    budget, told = accounting_of(SPEC, 1, 1).epsilon(3), []
    spec = SPEC.model_copy(update={"epsilon": budget})
    found = results(client_noise(spec, told, rounds=2), transport)
    assert len(found) == 3, "two rounds of SFT and one of VA"
    last = found[-1]
    assert last.record.privacy.epsilon == budget
    assert last.state.early == {"va": 1}
    assert last.state.result.sha256 == last.record.adapter_sha256
    assert told == [f"The privacy budget DP_EPSILON={budget:g} allows no further round: the run ends after 3 of 4."]
    with pytest.raises(FederationError, match="round 4 would pass the privacy budget"):
        client_noise(spec, rounds=2).run_round(dataclasses.replace(last.state, early={}), transport)


def test_a_run_that_ends_in_its_first_phase_has_no_round_of_the_second(transport):
    spec = SPEC.model_copy(update={"epsilon": accounting_of(SPEC, 1, 1).epsilon(1)})
    (only,) = results(client_noise(spec, rounds=2), transport)
    assert only.state.early == {"sft": 1, "va": 0}
    assert only.state.reference is not None


def test_a_client_whose_budget_is_spent_is_not_asked_again(transport):
    spec = SPEC.model_copy(update={"epsilon": accounting_of(SPEC, 1, 1).epsilon(2)})
    found = results(client_noise(spec, clients=4, per_round=2, rounds=3), transport)
    asked = [client for result in found for client in result.record.selected]
    assert max(map(asked.count, range(4))) == 2
    assert all(each.epsilon <= spec.epsilon for each in found[-1].record.privacy.clients)


def test_a_client_that_declines_has_sent_nothing_and_one_that_fails_may_have(tmp_path):
    learner = PrivateLearner(ToyLearner(broken=frozenset({3})), lambda client: tmp_path / str(client), min_shard=2)
    found = results(client_noise(rounds=1, sft_rounds=1, va_rounds=0), InProcessTransport(learner, shard))
    assert found[0].record.declined == (0,)
    assert found[0].state.releases == {1: 1, 2: 1, 3: 1}


def sum_by_hand(clip, clients, m):
    """x + Σ clip(u_i - x) / m, of the updates that toy clients send in round 0."""
    task = FitTask("run", 0, "sft", START.adapter, None, MODEL, TRAIN, seed=7)
    total = torch.zeros(3, dtype=torch.float64)
    for client in clients:
        change = ToyLearner().fit(task, shard(client), lambda status: None).adapter.load().vector.double()
        total += change * min(1.0, clip / float(change.norm()))
    return (total / m).tolist()


def test_the_server_releases_the_noised_mean_of_the_clipped_changes(tmp_path, transport):
    """With next to no noise it is the mean that a hand would make."""
    quiet = at_server(noise=1e-6, epsilon=1e30)
    (first, *_) = islice(server_noise(tmp_path / "private", quiet).run(START, transport), 1)
    assert first.state.adapter.vector.tolist() == pytest.approx(sum_by_hand(0.5, range(4), 4), abs=1e-5)
    fed = server_noise(tmp_path / "private", at_server(epsilon=1e30))
    (noisy, *_) = islice(fed.run(START, transport), 1)
    off = [a - b for a, b in zip(noisy.state.adapter.vector.tolist(), sum_by_hand(0.5, range(4), 4), strict=True)]
    assert 0.01 < max(map(abs, off)) < 5 * 4.0 * 0.5 / 4


def test_with_noise_at_the_server_nothing_says_anything_of_a_single_client(tmp_path, transport):
    for result in results(server_noise(tmp_path / "private", clients=6, per_round=2), transport):
        record = result.record
        assert result.updates == result.inputs.arrived == ()
        assert result.counted is None
        per_client = ("selected", "clients", "weights", "scores", "contributions", "excluded", "declined", "arrived")
        assert {name: getattr(record, name) for name in per_client} == dict.fromkeys(per_client, ())
        assert (record.lora_error, record.counted, record.effective_clients) == (None, None, 1.0)
        assert result.state.norms.change is None
        assert (record.seconds, record.spent) == (0.0, None), "they tell whether anybody was drawn"
        said = record.privacy
        assert (said.accountant, said.relation, said.amplified) == ("RDP", "replace one", True)


def test_the_draw_is_the_secrets_and_not_the_seeds(tmp_path):
    plans = [server_noise(tmp_path / name, clients=40, per_round=10) for name in ("one", "one", "other")]
    for fed in plans:
        fed.privacy.begin("run", 0, resumed=False)
    one, again, other = (
        [fed.privacy.selected("run", dataclasses.replace(START, next_round=number), ()) for number in range(5)]
        for fed in plans
    )
    assert one == again
    assert one != other
    assert {len(drawn) for drawn in one} == {10}
    assert len(set(one)) == 5


def test_poisson_draws_each_client_by_itself(tmp_path):
    spec = at_server(sampling="poisson")
    fed = server_noise(tmp_path, spec, clients=50, per_round=10)
    drawn = [fed.privacy.selected("run", dataclasses.replace(START, next_round=k), ()) for k in range(100)]
    counts = [len(each) for each in drawn]
    assert sum(counts) / 100 == pytest.approx(10, abs=4 * math.sqrt(50 * 0.2 * 0.8 / 100))
    assert torch.tensor(counts).double().var() == pytest.approx(50 * 0.2 * 0.8, rel=0.6)
    assert not any(7 in fed.privacy.selected("run", START, {7}) for _ in range(3))


def test_a_round_that_draws_nobody_releases_noise_all_the_same(tmp_path, transport):
    spec = at_server(sampling="poisson", epsilon=1e6)
    fed = server_noise(tmp_path, spec, clients=40, per_round=1, rounds=4)
    fed.privacy.begin("run", 0, resumed=False)
    drawn = [fed.privacy.selected("run", dataclasses.replace(START, next_round=number), ()) for number in range(8)]
    assert () in drawn, "else this secret shows nothing: about one in a hundred thousand"
    found = results(fed, transport)
    hashes = [result.record.adapter_sha256 for result in found]
    assert len(set(hashes)) == len(found) == 8


@pytest.mark.parametrize("rule", ["fedavg", "fedavgm", "fedadam"])
def test_a_server_optimiser_sees_the_noised_mean_alone(tmp_path, transport, rule):
    found = results(server_noise(tmp_path / rule, rule=rule), transport)
    assert len({result.record.adapter_sha256 for result in found}) == 4


def test_the_clip_adapts_to_its_quantile_and_both_cost_what_the_noise_says(tmp_path):
    """Of clients that all move by 0.3 the clip ends near 0.3, from above and from below."""

    class Still(ToyLearner):
        def fit(self, task, shard, on_status):
            update = super().fit(task, shard, on_status)
            direction = torch.tensor([0.3, 0.0, 0.0]) * (1 + 0.1 * (shard.client_id % 5))
            moved = type(START.adapter)({"w": task.adapter.tensors["w"] + direction})
            return dataclasses.replace(update, adapter=moved)

    for begin in (3.0, 0.03):
        spec = at_server(clip=begin, noise=0.5, clip_quantile=0.5, epsilon=1e6)
        fed = server_noise(tmp_path / str(begin), spec, clients=30, per_round=30, rounds=30)
        found = results(fed, InProcessTransport(Still(), shard))
        clips = [result.record.privacy.clip for result in found]
        assert clips[0] == begin
        assert 0.2 < clips[-1] < 0.6
    noise = fed.privacy
    assert 1 / noise.noise_of_sum**2 + 1 / (2 * noise.noise_of_count) ** 2 == pytest.approx(1 / 0.5**2)


def test_fewer_answers_than_min_clients_end_the_run_and_nothing_is_released(tmp_path):
    learner = ToyLearner(broken=frozenset({0, 1, 2}))
    fed = server_noise(tmp_path / "private", min_clients=2)
    with pytest.raises(FederationError, match="round 1 has 1 good updates, MIN_CLIENTS is 2"):
        results(fed, InProcessTransport(learner, shard))
    assert Spent(tmp_path / "private").releases == []


class Heard(RunListener):
    def __init__(self):
        self.lines, self.statuses, self.answers = [], [], []

    def told(self, line):
        self.lines.append(line)

    def status(self, status):
        self.statuses.append(status)

    def answer(self, answer):
        self.answers.append(answer)


def a_run(folder, fed, listener=None):
    return Run(fed, RunFolder.at(folder), lambda: START.adapter, listener or RunListener(), keep_updates_mb=0)


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_of_a_run_with_noise_at_the_server_has_no_file_of_a_client(tmp_path, transport):
    logs, heard = tmp_path / "logs", Heard()
    run = a_run(logs, server_noise(logs / "private", clients=4, per_round=2), heard)
    list(run.rounds(transport))
    run.finish(transport)
    assert heard.statuses == heard.answers == []
    found = files(logs)
    assert {"private/secret", "private/spent.jsonl", "global_final.safetensors"} <= found
    assert not [name for name in found if name.startswith(("clients", "kept", "status", "received", "client_metrics"))]


def test_what_fails_is_said_on_the_screen_and_nowhere_else(tmp_path):
    logs, heard = tmp_path / "logs", Heard()
    transport = InProcessTransport(ToyLearner(broken=frozenset({1})), shard)
    list(a_run(logs, server_noise(logs / "private"), heard).rounds(transport))
    assert {answer.client_id for answer in heard.answers} == {1}
    assert not any(isinstance(answer, ClientUpdate) for answer in heard.answers)
    assert "not finite" not in (logs / "progress.jsonl").read_text()


@pytest.mark.parametrize("where", ["client", "server"])
@pytest.mark.parametrize("stop", [1, 3])
def test_a_run_that_was_left_goes_on_to_the_same_bytes_with_the_same_secrets(tmp_path, transport, where, stop):
    def fed(name):
        return client_noise() if where == "client" else server_noise(tmp_path / f"private_{name}", per_round=2)

    run = a_run(tmp_path / "left", fed("left"))
    list(islice(run.rounds(transport), stop))
    rest = a_run(tmp_path / "left", fed("left"))
    list(rest.rounds(transport, resume=True))
    if where == "server":  # the same secret, and a ledger of its own
        secret_of(tmp_path / "private_whole")
        shutil.copy(tmp_path / "private_left" / "secret", tmp_path / "private_whole" / "secret")
    whole = dataclasses.replace(a_run(tmp_path / "whole", fed("whole")), identity=run.identity)
    list(whole.rounds(transport))
    assert rest.state.adapter.to_bytes() == whole.state.adapter.to_bytes()
    records = [read_records(tmp_path / name / "progress.jsonl", RoundRecord, is_round) for name in ("left", "whole")]
    spent = [[record.privacy for record in each] for each in records]
    assert spent[0] == spent[1]
    assert spent[0][-1].releases == 4


def is_round(row):
    return row["event"] == "round"


def test_a_lost_secret_of_the_server_counts_its_open_round_as_spent(tmp_path, transport):
    logs = tmp_path / "logs"

    def fed():
        return server_noise(logs / "private", clients=4, per_round=2)

    run = a_run(logs, fed())
    list(islice(run.rounds(transport), 2))
    (logs / "private" / "secret").unlink()
    later = a_run(logs, fed())
    list(later.rounds(transport, resume=True))
    record = read_records(logs / "progress.jsonl", RoundRecord, is_round)[-1]
    assert record.privacy.releases == 5
    assert [each.round for each in Spent(logs / "private").releases if each.secret == LOST] == [2]


def test_a_lost_ledger_of_the_server_counts_what_is_complete(tmp_path, transport):
    logs = tmp_path / "logs"

    def fed():
        return server_noise(logs / "private", clients=4, per_round=2)

    list(islice(a_run(logs, fed()).rounds(transport), 2))
    for path in (logs / "private").iterdir():
        path.unlink()
    list(a_run(logs, fed()).rounds(transport, resume=True))
    assert read_records(logs / "progress.jsonl", RoundRecord, is_round)[-1].privacy.releases == 5


def test_a_round_that_is_done_again_from_other_updates_may_end_the_run(tmp_path, transport):
    """The draw is the same, so none of the two releases is cheaper for it."""
    spec = at_server(epsilon=accounting_of(at_server(), 4, 2).epsilon(1))
    folder = tmp_path / "private"
    fed = server_noise(folder, spec, clients=4, per_round=2)
    fed.privacy.begin("run", 0, resumed=False)
    Spent(folder).add(Release(run_id="run", round=0, secret="0" * 16, tag="earlier", noise=4.0))
    with pytest.raises(FederationError, match="round 1, done again, would pass the privacy budget"):
        next(iter(fed.run(START, transport)))


def test_the_last_adapter_is_on_the_disk_where_the_budget_ends_the_run(tmp_path, transport):
    spec = SPEC.model_copy(update={"epsilon": accounting_of(SPEC, 1, 1).epsilon(1)})
    heard = Heard()
    run = a_run(tmp_path / "logs", client_noise(spec), heard)
    list(run.rounds(transport))
    final = run.finish(transport)
    assert load_adapter(run.folder.paths.global_final).sha256 == final.sha256
    assert load_adapter(run.folder.paths.global_sft).sha256 == final.sha256
    assert run.plan.total_rounds == 1
    assert run.folder.state().finished
    assert any("allows no further round" in line for line in heard.lines)
