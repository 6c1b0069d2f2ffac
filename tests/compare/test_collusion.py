import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from fccl.compare.collusion import EPSILON, TOGETHER, Colluding, Seen, enough, farthest, min_max, together
from fccl.compare.methods import METHODS
from fccl.compare.scenarios import SCENARIOS
from fccl.compare.trial import run_trial
from fccl.data.shards import load_shard
from fccl.messages import ClientFailure, ClientUpdate, FitTask
from fccl.model.loading import Models
from fccl.paths import DataPaths
from fccl.testing.toy import MODEL, TRAIN, ToyLearner, adapter, shard
from fccl.training.learner import GenericLearner
from fccl.transports.in_process import InProcessTransport

TASK = FitTask("run", 0, "sft", adapter(1.0, -2.0, 3.0), None, MODEL, TRAIN, 7)
BAD = (1, 4, 5)
STEPS = arrays.arrays(np.float64, (5, 4), elements=st.floats(-10, 10, width=32))


def ask(attack, clients=8, bad=BAD):
    """What each client sends, and what each has honestly trained, as steps (n, 3)."""
    honest = InProcessTransport(ToyLearner(), shard)
    said = Colluding(honest, dict.fromkeys(bad, attack)).ask(TASK, range(clients))
    sent, trained = ({one.client_id: one for one in answers} for answers in (said, honest.ask(TASK, range(clients))))
    assert list(sent) == list(range(clients))
    return tuple(np.stack([step(one) for one in group.values()]) for group in (sent, trained))


def step(update: ClientUpdate):
    return (update.adapter.load().tensors["w"] - TASK.adapter.tensors["w"]).double().numpy()


@pytest.mark.parametrize("attack", TOGETHER)
def test_only_the_bad_send_something_else_and_all_of_them_the_same(attack):
    sent, trained = ask(attack)
    honest = [client for client in range(8) if client not in BAD]
    assert (sent[honest] == trained[honest]).all()
    assert np.ptp(sent[list(BAD)], axis=0).max() == 0


def test_a_little_is_enough_as_its_paper_has_it():
    """Algorithm 3: s = ⌊n/2 + 1⌋ - m supporters, z where the normal distribution has (n - m - s) / (n - m). It sees the
    steps of the bad alone.
    """
    sent, trained = ask("little_is_enough")
    own, n, m = trained[list(BAD)], 8, 3
    supporters = n // 2 + 1 - m
    z = stats.norm.ppf((n - m - supporters) / (n - m))
    assert sent[1] == pytest.approx(own.mean(0) - z * own.std(0), abs=1e-6)


def test_how_little_is_enough_in_the_papers_own_setting():
    """50 workers, 12 corrupted: they need 14 of the 38 others, so z has 24/38 = 0.632 of the normal distribution."""
    assert stats.norm.cdf(enough(50, 12)) == pytest.approx(24 / 38)


def test_a_majority_needs_no_support_and_a_lone_one_none_that_it_could_get():
    assert stats.norm.cdf(enough(8, 5)) == pytest.approx(0.999)
    assert enough(4, 1) < 0
    assert enough(2, 1) == 0.0


def test_the_inner_product_is_turned_round():
    sent, trained = ask("inner_product")
    mean = np.delete(trained, BAD, axis=0).mean(0)
    assert sent[4] == pytest.approx(-EPSILON * mean, abs=1e-6)
    assert sent[4] @ mean < 0


def test_copycats_and_mirrors():
    sent, trained = ask("copycat")
    assert sent[1] == pytest.approx(np.delete(trained, BAD, axis=0).mean(0), abs=1e-6)
    sent, trained = ask("mirror")
    assert sent[1] == pytest.approx(-trained[7], abs=1e-6)  # toy client i holds i + 1 examples


def widest(steps):
    return max(np.linalg.norm(one - other) for one in steps for other in steps)


@given(STEPS)
def test_min_max_lies_as_far_out_as_the_two_farthest_are_apart(steps):
    """Against the paper's condition: no farther from any honest step than D, and any more would be."""
    found = min_max(Seen(torch.zeros(1, 4).double(), torch.from_numpy(steps), (1,) * 5)).numpy()
    reach = max(np.linalg.norm(found - one) for one in steps)
    assert reach <= widest(steps) * (1 + 1e-6) + 1e-6
    if steps.std(0).max() > 1e-3:
        assert reach == pytest.approx(widest(steps), rel=1e-5, abs=1e-6)


@given(STEPS)
def test_min_max_is_what_the_papers_search_by_halving_finds(steps):
    mean, away = steps.mean(0), -steps.std(0)
    if np.linalg.norm(away) < 1e-3:
        return
    gamma, size = 0.0, 1e4
    while size > 1e-9:  # algorithm 1 of the paper, from below
        if max(np.linalg.norm(mean + (gamma + size) * away - one) for one in steps) <= widest(steps) + 1e-12:
            gamma += size
        size /= 2
    found = farthest(*(torch.from_numpy(part) for part in (steps, mean, away)))
    assert found == pytest.approx(gamma, rel=1e-4, abs=1e-4)


def test_equal_steps_leave_no_room():
    steps = torch.ones(3, 4).double()
    assert farthest(steps, steps[0], torch.zeros(4).double()) == 0.0


def test_failures_are_told_and_where_nobody_honest_answers_nothing_is_changed():
    transport = Colluding(InProcessTransport(ToyLearner(broken=frozenset({0})), shard), {1: "min_max"})
    first, second = transport.ask(TASK, [0, 1])
    assert isinstance(first, ClientFailure)
    assert step(second).tolist() == step(ToyLearner().fit(TASK, shard(1), lambda status: None)).tolist()


def test_attacks_of_one_client_are_not_touched():
    updates = [ToyLearner().fit(TASK, shard(client), lambda status: None) for client in range(3)]
    assert together(TASK, updates, {0: "sign_flip"}) == {}


def test_who_colludes_looks_at_the_others_before_anything_is_aggregated(workshop, tiny_model):
    """Against the mean of what honest training sends, the bad client's step replaced by the formula."""
    shop = workshop(fed_rounds=1)
    one = shop.planner.trial(SCENARIOS["inner-product"], METHODS["fedavg"], 42)
    result = run_trial(shop.resources, one)
    final, start = flat(tiny_model.adapter()), flat(tiny_model.initial_adapter(42))
    (bad,) = shop.planner.bad_clients(SCENARIOS["inner-product"], 42)
    steps = {client: sent - start for client, sent in honestly_trained(shop, one).items()}
    steps[bad] = -EPSILON * np.mean([steps[client] for client in steps if client != bad], axis=0)
    mean = sum(weight * steps[client] for client, weight in enumerate(result.rounds[0].weights))
    assert np.allclose(final, start + mean, atol=1e-6)


def honestly_trained(shop, one):
    """What each client honestly trains from the start, as vectors."""
    learner = GenericLearner(Models.holding(shop.resources.model))
    start = shop.resources.model.initial_adapter(42)
    task = FitTask("by hand", 0, "sft", start, None, one.spec.model, one.spec.train, 42)
    shards = (load_shard(DataPaths(one.data), client) for client in range(4))
    updates = [learner.fit(task, each, lambda status: None) for each in shards]
    return {update.client_id: flat(update.adapter.load()) for update in updates}


def flat(adapter):
    return np.concatenate([tensor.double().numpy().ravel() for tensor in adapter.tensors.values()])
