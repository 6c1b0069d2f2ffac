import dataclasses
import gc
import itertools
import math
import weakref

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fccl.adapters.stored import AdapterReader, StoredAdapter
from fccl.contribution.prior import FAR, prior_weights, shares
from fccl.contribution.verified import ENOUGH, MOST, ROUNDING, UPHILL, Verified, mean_of
from fccl.federation.state import FederationState
from fccl.storage.files import sha256_of
from fccl.testing.quadratic import Quadratic, flat, task, update, updates
from fccl.testing.toy import START, ToyLearner, adapter, federation, shard
from fccl.transports.in_process import InProcessTransport
from tests.contribution.strategies import like_row, quadratics, rounds, row, rules
from tests.examples import few


def by_numpy(rule, given_updates):
    """The formula once more, as matrices: rows of U are updates. Returns the path of (weights, scores, loss)."""
    matrix = np.array([flat(each.adapter) for each in given_updates])
    samples = np.array([each.contribution.num_samples if rule.prior == "samples" else 1.0 for each in given_updates])
    far = np.linalg.norm(matrix, axis=1)  # from the round's adapter, which is 0
    believed = np.ones(len(far))
    if far.any():
        middle = np.sort(far[far > 0])[np.count_nonzero(far) // 2]
        believed = np.where(far > FAR * middle, middle / np.maximum(far, 1e-300), 1.0)
    prior = samples * believed / (samples * believed).sum()
    target, curvature = np.array(rule.loss.target), np.array(rule.loss.curvature)
    uphill = believed * (matrix @ (curvature * -target))
    order = np.argsort(np.abs(uphill))
    middle = np.abs(uphill)[order][np.searchsorted(np.cumsum(prior[order]), 0.5 - 1e-9)]
    if middle > 0:
        prior = prior * np.exp(-UPHILL * np.clip(uphill / middle, 0, 1) / rule.temperature)
        prior = prior / prior.sum()
    weights, scores, path, gaps = prior, np.zeros(len(prior)), [], []
    for step in range(rule.steps + 1):
        theta = (weights @ matrix).astype(np.float32).astype(np.float64)
        path.append((weights, scores, 0.5 * np.sum(curvature * (theta - target) ** 2)))
        slopes = believed * (matrix @ (curvature * (theta - target)))
        centred = slopes - weights @ slopes
        slopes = centred if np.abs(centred).max() > ROUNDING * np.abs(slopes).max() else 0 * centred
        gaps.append(-slopes.min())
        if step == rule.steps or gaps[-1] <= 0.1 * gaps[0]:
            break
        scale = min(np.abs(slopes).max(), MOST * prior @ np.abs(slopes)) or np.abs(slopes).max()
        scores = scores - np.clip(slopes / scale, -1, 1) / np.sqrt(step + 1)
        weights = prior * np.exp(scores / rule.temperature)
        weights = weights / weights.sum()
    return path


@settings(deadline=None)
@given(rules, rounds())
def test_weights_are_on_the_simplex_and_a_softmax_of_the_scores_over_the_prior(rule, given_updates):
    weighing = rule.weigh(task(), given_updates)
    assert all(weight >= 0 for weight in weighing.weights)
    assert math.fsum(weighing.weights) == pytest.approx(1, abs=1e-12)
    tilted = np.array(weighing.verification.prior) * np.exp(np.array(weighing.scores) / rule.temperature)
    assert weighing.weights == pytest.approx(tilted / tilted.sum(), abs=1e-12)
    assert weighing.verification.prior == pytest.approx(by_numpy(rule, given_updates)[0][0], abs=1e-9)


@settings(deadline=None)
@given(rules, rounds(min_size=2))
def test_it_is_the_formula(rule, given_updates):
    path = by_numpy(rule, given_updates)
    losses = [loss for *_, loss in path]
    assume(
        all(abs(a - b) > 1e-6 for a, b in itertools.combinations(losses, 2))
    )  # equal losses: float noise decides which is taken
    weighing = rule.weigh(task(), given_updates)
    weights, scores, _ = path[int(np.argmin(losses))]
    assert weighing.verification.path == pytest.approx(losses, rel=1e-4, abs=1e-6)
    assert weighing.weights == pytest.approx(weights, rel=1e-3, abs=1e-5)
    assert weighing.scores == pytest.approx(scores, rel=1e-3, abs=1e-4)


@settings(deadline=None)
@given(rules, rounds())
def test_never_worse_than_the_prior_on_the_verification_examples(rule, given_updates):
    weighing = rule.weigh(task(), given_updates)
    found = weighing.verification
    of_the_mean = rule.loss.loss(task(), mean_of(given_updates, weighing.weights))
    assert of_the_mean == found.loss_weights <= found.loss_prior
    assert found.loss_prior == rule.loss.loss(task(), mean_of(given_updates, found.prior))
    assert found.loss_weights == found.path[found.taken] == min(found.path)


@settings(deadline=None)
@given(rounds(min_size=2), quadratics, st.sampled_from(["samples", "uniform"]), st.integers(0, 2**32 - 1))
def test_slopes_are_the_derivatives_of_the_loss_by_the_weights(given_updates, loss, prior, seed):
    """For any direction v with sum 0 (one stays on the simplex's plane) dL(theta(w + e v))/de at e = 0 is sum_i v_i
    d_i. L is quadratic, so the central difference is exact but for rounding."""
    found = Verified(loss, steps=1, prior=prior).weigh(task(), given_updates).verification
    assume(min(shares(task(), given_updates)) == 1)  # those of one that is far out are of a part of its change
    weights, matrix = np.array(found.prior), np.array([flat(each.adapter) for each in given_updates])
    direction = np.random.default_rng(seed).normal(size=len(weights))
    direction -= direction.mean()

    def at(step):
        return 0.5 * np.sum(np.array(loss.curvature) * ((weights + step * direction) @ matrix - loss.target) ** 2)

    assert direction @ np.array(found.slopes) == pytest.approx((at(0.5) - at(-0.5)) / 1.0, rel=1e-4, abs=1e-4)
    assert weights @ np.array(found.slopes) == pytest.approx(0, abs=1e-9)


@settings(deadline=None)
@given(rules, rounds(min_size=2), st.randoms())
def test_reordering_clients_reorders_weights(rule, given_updates, random):
    losses = [loss for *_, loss in by_numpy(rule, given_updates)]
    assume(all(abs(a - b) > 1e-5 for a, b in itertools.combinations(losses, 2)))
    order = list(range(len(given_updates)))
    random.shuffle(order)
    weights = rule.weigh(task(), given_updates).weights
    assert rule.weigh(task(), [given_updates[index] for index in order]).weights == pytest.approx(
        [weights[index] for index in order], abs=1e-4
    )


@settings(deadline=None)
@given(rules, rounds(row=like_row, min_size=2, max_size=5), st.data())
def test_copies_of_one_client_weigh_together_what_it_would_with_the_sum_of_their_priors(rule, given_updates, data):
    """Equal updates have equal slopes, hence equal scores; and neither the mean of the slopes nor the largest sees how
    a prior is divided among them (unless an update is far out, which depends on how many others there are). So by
    induction over the steps: w_copy1 + w_copy2 = w of one client with prior p1 + p2, and w_copy1 : w_copy2 = p1 : p2.

    With the prior by samples, a client that splits its samples over two copies gains nothing; one that claims them
    twice gets what a client with twice the samples would. With the uniform prior a copy always counts as one client
    more.
    """
    rule = dataclasses.replace(rule, prior="samples")
    chosen = data.draw(st.integers(0, len(given_updates) - 1))
    first, second = data.draw(st.integers(1, 500)), data.draw(st.integers(1, 500))
    numbers = flat(given_updates[chosen].adapter)
    others = [each for index, each in enumerate(given_updates) if index != chosen]
    whole = [*others, update(chosen, numbers, first + second)]
    losses = [loss for *_, loss in by_numpy(rule, whole)]
    assume(all(abs(a - b) > 1e-5 for a, b in itertools.combinations(losses, 2)))
    expected = rule.weigh(task(), whole).weights
    *rest, one, two = rule.weigh(task(), [*others, update(chosen, numbers, first), update(77, numbers, second)]).weights
    assert [*rest, one + two] == pytest.approx(expected, abs=1e-4)
    assert one * second == pytest.approx(two * first, rel=1e-9)


def test_a_copy_under_the_uniform_prior_counts_as_one_client_more():
    good, bad = (1.0, 0.0, 0.0), (-1.0, 0.0, 0.0)
    rule = Verified(Quadratic(target=(1.0, 0.0, 0.0)), prior="uniform")
    twice = rule.weigh(task(), updates([good, bad, bad]))
    as_samples = dataclasses.replace(rule, prior="samples").weigh(task(), updates([good, bad], [1, 2]))
    assert twice.weights[1] == twice.weights[2]
    assert twice.weights[1] + twice.weights[2] == pytest.approx(as_samples.weights[1])
    assert twice.weights[1] + twice.weights[2] < 2 / 3


@settings(deadline=None)
@given(row, st.integers(1, 6), st.sampled_from(["samples", "uniform"]), st.data())
def test_where_all_updates_are_alike_the_weights_are_the_prior_to_the_bit(numbers, clients, prior, data):
    samples = data.draw(st.lists(st.integers(1, 100), min_size=clients, max_size=clients))
    given_updates = updates([numbers] * clients, samples)
    weighing = Verified(Quadratic(target=(9.0, 9.0, 9.0)), prior=prior).weigh(task(), given_updates)
    assert weighing.weights == weighing.verification.prior == prior_weights(prior, given_updates, (1.0,) * clients)
    assert weighing.scores == (0.0,) * clients
    assert weighing.verification.taken == 0


@settings(deadline=None)
@given(rounds(min_size=2), quadratics, st.floats(0.125, 8))
def test_after_one_step_a_steeper_slope_is_less_weight_for_the_same_prior(given_updates, loss, temperature):
    weighing = Verified(loss, steps=1, temperature=temperature).weigh(task(), given_updates)
    assume(weighing.verification.taken == 1)
    factors = np.array(weighing.weights) / np.array(weighing.verification.prior)
    slopes = np.array(weighing.verification.slopes)
    for i, j in itertools.permutations(range(len(slopes)), 2):
        if slopes[i] < slopes[j] - 1e-6 * np.abs(slopes).max():
            assert factors[i] >= factors[j] * (1 - 1e-9)  # alike where both are steeper than a step can be


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 8))
def test_the_weight_of_a_useless_update_falls(seed, clients):
    """All but one moved most of the way to where the loss is least, each with an error of its own; one moved as far in
    a random direction.
    """
    draw = np.random.default_rng(seed)
    target = draw.normal(size=3)
    helpful = [0.8 * target + 0.1 * draw.normal(size=3) * np.linalg.norm(target) for _ in range(clients - 1)]
    noise = draw.normal(size=3)
    noise *= np.linalg.norm(target) / np.linalg.norm(noise)
    assume(noise @ target < 0.3 * target @ target)
    weighing = Verified(Quadratic(target=tuple(target))).weigh(task(), updates([*helpful, noise]))
    assert (
        weighing.weights[-1] < 0.5 / clients
    )  # half of its samples' share; the prior may have taken more than that already


# --- cost, memory, files


@pytest.mark.parametrize("clients", [10, 100])
def test_the_passes_do_not_grow_with_the_clients(clients):
    loss = Quadratic(target=(1.0, 2.0, 3.0))
    draw = np.random.default_rng(0)
    Verified(loss, steps=5, temperature=8.0).weigh(task(), updates(draw.normal(size=(clients, 3))))
    assert loss.asked == ["slopes"] * 6 + ["loss"]


@settings(deadline=None)
@given(rounds(min_size=2), quadratics, st.integers(0, 2**32 - 1))
def test_a_path_ends_early_only_where_other_weights_gain_little_of_what_the_prior_left(given_updates, loss, seed):
    weighing = Verified(loss, steps=4).weigh(task(), given_updates)
    assume(len(weighing.verification.path) < 5)
    assert loss.asked == ["slopes"] * (1 + len(weighing.verification.path))
    assume(
        min(shares(task(), given_updates)) == 1
    )  # the slopes of one that is far out are those of a part of its change
    matrix, last = np.array([flat(each.adapter) for each in given_updates]), weighing.verification.path[-1]
    others = np.random.default_rng(seed).dirichlet([0.3] * len(matrix), size=200)
    best = np.min(0.5 * np.sum(np.array(loss.curvature) * (others @ matrix - loss.target) ** 2, axis=1))
    assert last - best <= ENOUGH * -min(weighing.verification.slopes) + 1e-5


def test_a_few_adapters_are_in_memory_however_many_clients_there_are():
    alive, most = weakref.WeakSet(), 0

    class Kept:
        """An adapter that is made anew at every load, as one in a file is."""

        def __init__(self, numbers):
            self.numbers = numbers

        def load(self):
            nonlocal most
            loaded = adapter(*map(float, self.numbers))
            alive.add(loaded)
            most = max(most, len(alive))
            return loaded

    draw = np.random.default_rng(0)
    many = [update(index, (), kept=Kept(draw.normal(size=3))) for index in range(100)]
    gc.collect()
    Verified(Quadratic(target=(1.0, 2.0, 3.0))).weigh(task(), many)
    assert most <= 3


@settings(max_examples=few(20), deadline=None)
@given(rounds(min_size=2))
def test_updates_in_files_weigh_the_same_to_the_bit(tmp_path_factory, given_updates):
    folder = tmp_path_factory.mktemp("stored")
    reader = AdapterReader.like(adapter(0.0, 0.0, 0.0))

    def stored(each):
        path = folder / f"{each.client_id}.pt"
        each.adapter.save(path)
        return dataclasses.replace(each, adapter=StoredAdapter(path, sha256_of(path), reader))

    rule = Verified(Quadratic(target=(1.0, 2.0, 3.0)))
    one, other = rule.weigh(task(), given_updates), rule.weigh(task(), [stored(each) for each in given_updates])
    assert (one.weights, one.scores) == (other.weights, other.scores)


# --- in the federation


def test_a_round_s_record_holds_what_the_weigher_said():
    rule = Verified(Quadratic(target=(0.0, 0.0, 0.0)))
    result = federation(clients=4, rule=rule).run_round(
        FederationState(0, adapter()), InProcessTransport(ToyLearner(), shard)
    )
    again = rule.weigh(task(), result.updates)
    assert (result.record.weights, result.record.scores) == (again.weights, again.scores)
    assert result.record.verification.model_copy(update={"seconds": 0.0}) == again.verification.model_copy(
        update={"seconds": 0.0}
    )
    assert rule.loss.loss(task(), result.state.adapter) == result.record.verification.loss_weights
    assert result.record.weights[0] > result.record.verification.prior[0], "client 0 goes where the loss is least"


def test_an_excluded_client_is_not_weighed():
    record = (
        federation(rule=Verified(Quadratic()))
        .run_round(START, InProcessTransport(ToyLearner(broken=frozenset({1})), shard))
        .record
    )
    assert record.clients == (0, 2, 3)
    assert len(record.weights) == len(record.verification.prior) == len(record.verification.slopes) == 3
