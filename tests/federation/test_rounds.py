import dataclasses
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fccl.adapters.adapter import Adapter
from fccl.aggregation.lora_mean import product_error
from fccl.aggregation.mean import weighted_mean
from fccl.aggregation.protocol import Parts
from fccl.aggregation.rules import aggregation
from fccl.contribution.reported import ContributionRule
from fccl.errors import DIVERGED, FederationError, TrainingError
from fccl.federation.selection import select_clients
from fccl.federation.state import FederationState
from fccl.messages import ClientFailure, FitTask, declined
from fccl.specs import RoundPlan
from fccl.testing.toy import MODEL, START, TRAIN, ToyLearner, adapter, federation, shard
from fccl.transports.in_process import InProcessTransport


class Shuffled(InProcessTransport):
    """Answers arrive in a random order."""

    def __init__(self, learner, seed):
        super().__init__(learner, shard)
        self.random = random.Random(seed)

    def ask(self, task, client_ids):
        answers = list(super().ask(task, client_ids))
        self.random.shuffle(answers)
        yield from answers


class Edited(InProcessTransport):
    """Answers are changed on their way."""

    def __init__(self, edit):
        super().__init__(ToyLearner(), shard)
        self.edit = edit

    def ask(self, task, client_ids):
        for answer in super().ask(task, client_ids):
            yield from self.edit(answer)


def run(fed=None, transport=None, state=START):
    return list((fed or federation()).run(state, transport or InProcessTransport(ToyLearner(), shard)))


def test_all_rounds_in_order_sft_first():
    records = [result.record for result in run()]
    assert [(record.round, record.phase) for record in records] == [(0, "sft"), (1, "sft"), (2, "va"), (3, "va")]


def test_the_reference_of_va_is_the_last_sft_adapter():
    results = run()
    tasks = []

    class Spy(ToyLearner):
        def fit(self, task, shard, on_status):
            tasks.append(task)
            return super().fit(task, shard, on_status)

    run(transport=InProcessTransport(Spy(), shard))
    references = {task.reference.sha256 for task in tasks if task.phase == "va"}
    assert references == {results[1].state.adapter.sha256}
    assert {task.reference for task in tasks if task.phase == "sft"} == {None}


def test_a_preference_loss_without_a_reference_has_none_in_its_task():
    tasks = []

    class Spy(ToyLearner):
        def fit(self, task, shard, on_status):
            tasks.append(task)
            return super().fit(task, shard, on_status)

    fed = federation()
    train = {phase: spec.model_copy(update={"preference_loss": "simpo"}) for phase, spec in fed.train.items()}
    run(dataclasses.replace(fed, train=train), InProcessTransport(Spy(), shard))
    assert {task.phase for task in tasks} == {"sft", "va"}
    assert {task.reference for task in tasks} == {None}


def test_the_new_adapter_is_the_weighted_mean_of_the_updates():
    result = run()[0]
    expected = weighted_mean(zip(result.record.weights, [update.adapter for update in result.updates], strict=True))
    assert result.state.adapter.sha256 == expected.sha256 == result.record.adapter_sha256


@given(st.integers(0, 1000))
def test_the_order_of_arrival_does_not_matter(seed):
    assert run(transport=Shuffled(ToyLearner(), seed))[-1].record.adapter_sha256 == run()[-1].record.adapter_sha256


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_going_on_from_any_round_gives_the_same_bytes(stop):
    whole = run()
    rest = run(state=whole[stop - 1].state)
    assert rest[-1].record.adapter_sha256 == whole[-1].record.adapter_sha256


def test_another_seed_is_another_result():
    one, two = federation(), federation()
    object.__setattr__(two, "plan", two.plan.model_copy(update={"seed": 8}))
    assert run(one)[-1].record.adapter_sha256 != run(two)[-1].record.adapter_sha256


def test_a_failing_client_is_excluded_with_its_reason_and_the_others_go_on():
    record = run(transport=InProcessTransport(ToyLearner(broken=frozenset({2})), shard))[0].record
    assert record.clients == (0, 1, 3)
    assert [(e.client_id, e.reason) for e in record.excluded] == [(2, "the loss is not finite")]
    assert sum(record.weights) == pytest.approx(1)


def without_client_1(answer):
    if answer.client_id != 1:
        yield answer


def twice(answer):
    yield answer
    yield answer


def of_another_round(answer):
    yield answer if answer.client_id else replaced(answer, round=99)


def of_another_run(answer):
    yield answer if answer.client_id else replaced(answer, run_id="other")


def of_another_shape(answer):
    yield answer if answer.client_id else replaced(answer, adapter=adapter(1.0))


def with_invented_samples(answer):
    yield (
        answer
        if answer.client_id
        else replaced(answer, contribution=answer.contribution.model_copy(update={"num_samples": 10**9}))
    )


def replaced(update, **changes):
    return type(update)(**{**update.__dict__, **changes})


@pytest.mark.parametrize(
    ("edit", "excluded", "reason"),
    [
        (without_client_1, 1, "no answer"),
        (of_another_round, 0, "round 99"),
        (of_another_run, 0, "run_id 'other'"),
        (of_another_shape, 0, "shape"),
        (with_invented_samples, 0, "reports 1000000000 samples, but its shard has 1"),
    ],
)
def test_an_answer_that_does_not_answer_is_excluded(edit, excluded, reason):
    fed = federation()
    object.__setattr__(fed, "known_samples", {"sft": {client: client + 1 for client in range(4)}})
    record = fed.run_round(START, Edited(edit)).record
    assert [e.client_id for e in record.excluded] == [excluded]
    assert reason in record.excluded[0].reason
    assert excluded not in record.clients


def test_an_answer_counts_once():
    assert federation().run_round(START, Edited(twice)).record.adapter_sha256 == run()[0].record.adapter_sha256


def stranger(answer):
    yield replaced(answer, client_id=77)
    yield answer
    yield ClientFailure(78, "who am I")


def test_nobody_speaks_who_was_not_asked():
    record = federation().run_round(START, Edited(stranger)).record
    assert record.clients == (0, 1, 2, 3)
    assert record.excluded == ()


def test_too_few_clients_is_an_error_that_names_them():
    fed = federation(min_clients=3)
    with pytest.raises(
        FederationError, match=r"round 1 has 2 good updates, MIN_CLIENTS is 3 \(client 1: the loss is not finite"
    ):
        run(fed, InProcessTransport(ToyLearner(broken=frozenset({1, 2})), shard))


def decliners(*numbers):
    return InProcessTransport(ToyLearner(errors={number: declined("sft") for number in numbers}), shard)


def test_who_declines_a_phase_is_recorded_and_is_no_failure():
    record = federation().run_round(START, decliners(1, 3)).record
    assert (record.selected, record.clients, record.declined, record.excluded) == ((0, 1, 2, 3), (0, 2), (1, 3), ())


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ((0, 1, 2, 3), "round 1: every client that is asked declines FedIT"),
        ((1, 2), "round 1 has 2 good updates, MIN_CLIENTS is 3; 2 of the clients decline FedIT"),
    ],
)
def test_where_declining_leaves_too_few_it_is_one_error(numbers, said):
    with pytest.raises(FederationError) as error:
        run(federation(min_clients=3), decliners(*numbers))
    assert str(error.value) == said
    assert "start clients that take part in this phase" in error.value.hint
    assert error.value.resumable


@given(st.integers(1, 30), st.data(), st.integers(0, 100))
def test_selection_is_a_seeded_sample(clients, data, round_number):
    per_round = data.draw(st.integers(1, clients))
    plan = RoundPlan(fed_rounds=1, num_clients=clients, clients_per_round=per_round, seed=3)
    selected = select_clients(plan, round_number)
    assert len(set(selected)) == per_round
    assert list(selected) == sorted(selected)
    assert set(selected) <= set(range(clients))
    assert selected == select_clients(plan, round_number)


def test_over_the_rounds_everybody_is_drawn():
    plan = RoundPlan(fed_rounds=50, num_clients=10, clients_per_round=3, seed=0)
    drawn = [client for number in range(100) for client in select_clients(plan, number)]
    assert set(drawn) == set(range(10))
    assert max(map(drawn.count, range(10))) < 2 * 30


@pytest.mark.parametrize(("phase", "reference"), [("va", None), ("sft", adapter())])
def test_a_task_has_a_reference_exactly_in_va(phase, reference):
    with pytest.raises(ValueError, match="reference adapter"):
        FitTask("run", 0, phase, adapter(), reference, MODEL, TRAIN, 0)


def test_weights_in_the_record_are_the_rules():
    rule = ContributionRule(source="loss_inverse", temperature=0.5)
    record = (
        federation(rule=rule).run_round(FederationState(0, adapter()), InProcessTransport(ToyLearner(), shard)).record
    )
    assert record.weights == rule.weights(record.contributions)
    assert record.scores == rule.scores(record.contributions)
    assert record.effective_clients == pytest.approx(1 / sum(weight**2 for weight in record.weights))


@pytest.mark.parametrize(
    "name",
    ["fedavgm", "fedadam", "fedyogi", "fedadagrad", "median", "trimmed_mean", "krum", "multi_krum", "geometric_median"],
)
def test_the_rule_makes_the_next_adapter_and_each_phase_starts_its_state_anew(name):
    rule = aggregation(name)
    results = run(federation(clients=5, aggregation=rule))
    before, server = START.adapter, rule.initial(START.adapter)
    for result in results:
        if result.record.round == 2:
            server = rule.initial(before)
        expected = rule.aggregate(
            before, Parts(result.record.weights, [update.adapter for update in result.updates]), server
        )
        assert (result.state.adapter.sha256, result.state.server.sha256) == (
            expected.adapter.sha256,
            expected.state.sha256,
        )
        assert result.record.aggregation == name
        before, server = expected.adapter, expected.state


def test_the_record_says_whom_a_rule_counted_and_is_silent_when_it_took_the_weights():
    (krum, *_), (fedavg, *_) = run(federation(clients=5, aggregation=aggregation("krum"))), run()
    assert sorted(krum.record.counted) == [0, 0, 0, 0, 1]
    assert fedavg.record.counted is None
    assert fedavg.record.lora_error is None  # three numbers are no LoRA factors


def factors(*numbers):
    """One LoRA pair of rank 1."""
    return Adapter(
        {"m.lora_A.weight": torch.tensor([numbers[:2]]), "m.lora_B.weight": torch.tensor([numbers[2:]]).T.contiguous()}
    )


@dataclasses.dataclass
class FactorLearner(ToyLearner):
    """Answers with a LoRA pair of the client's own; those of `keep_a` leave A as it is."""

    keep_a: frozenset[int] = frozenset()

    def fit(self, task, shard, on_status):
        update = super().fit(dataclasses.replace(task, adapter=adapter()), shard, on_status)
        number = float(shard.client_id)
        a = (1.0, 1.0) if shard.client_id in self.keep_a else (1.0, number + 2)
        return dataclasses.replace(update, adapter=factors(*a, 2.0, -number, 1.0))


@pytest.mark.parametrize("name", ["factors", "svd"])
def test_the_record_says_how_far_the_factors_are_from_the_mean_product(name):
    start = FederationState(0, factors(1.0, 1.0, 0.0, 0.0, 0.0))
    rule = aggregation("fedavg", name, lora_r=1)
    result = federation(aggregation=rule).run_round(start, InProcessTransport(FactorLearner(), shard))
    a, b = (
        torch.stack([update.adapter.tensors[f"m.lora_{side}.weight"] for update in result.updates]).double()
        for side in "AB"
    )
    weights = torch.tensor(result.record.weights, dtype=torch.float64)[:, None, None]
    mean = (weights * (b @ a)).sum(0)
    new = result.state.adapter.tensors
    made = new["m.lora_B.weight"].double() @ new["m.lora_A.weight"].double()
    assert result.record.lora_error == pytest.approx(float((mean - made).norm() / mean.norm()), abs=1e-6)
    values = torch.linalg.svdvals(mean)
    best = float(values[1:].norm() / values.norm())
    assert (
        result.record.lora_error == pytest.approx(best, abs=1e-6)
        if name == "svd"
        else result.record.lora_error > best + 0.01
    )
    assert (
        product_error(
            start.adapter,
            Parts(result.record.weights, [update.adapter for update in result.updates]),
            result.state.adapter,
        )
        > 0
    )


def test_with_a_frozen_an_update_that_moved_it_does_not_count():
    start = FederationState(0, factors(1.0, 1.0, 0.0, 0.0, 0.0))
    fed = federation()
    frozen = {phase: spec.model_copy(update={"freeze_a": True}) for phase, spec in fed.train.items()}
    learner = FactorLearner(keep_a=frozenset({2}))
    record = dataclasses.replace(fed, train=frozen).run_round(start, InProcessTransport(learner, shard)).record
    assert record.clients == (2,)
    assert all("which LORA_AGGREGATION=freeze_a leaves alone" in excluded.reason for excluded in record.excluded)
    assert record.lora_error == pytest.approx(0, abs=1e-6)


LATE = RuntimeError("connection lost")
BROKE = TrainingError(f"{DIVERGED}: the gradient is not finite at step 3")


@pytest.mark.parametrize(
    ("errors", "min_clients", "resumable"),
    [
        ({0: BROKE, 1: BROKE, 2: BROKE, 3: BROKE}, 1, False),
        ({0: BROKE, 1: BROKE}, 3, False),
        ({0: BROKE, 1: LATE}, 4, False),
        ({0: BROKE, 1: LATE, 2: LATE}, 2, True),
        ({0: LATE, 1: LATE}, 3, True),
        ({0: BROKE, 1: LATE}, 3, True),
    ],
)
def test_a_round_is_not_to_be_resumed_when_divergence_alone_would_fail_it_again(errors, min_clients, resumable):
    fed = federation(4, min_clients=min_clients)
    with pytest.raises(FederationError, match=f"MIN_CLIENTS is {min_clients}") as caught:
        fed.run_round(START, InProcessTransport(ToyLearner(errors=errors), shard))
    assert caught.value.resumable == resumable
    assert ("resume the run" in caught.value.hint) == resumable
    assert ("a new run" in caught.value.hint) != resumable
