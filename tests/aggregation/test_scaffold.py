"""Against the paper's algorithm with SGD, written out in numpy, on quadratics whose answer is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.aggregation.scaffold import ClientControl, controls_after, corrections, server_control
from fccl.errors import AdapterError
from tests.aggregation.adapters import adapter, vector
from tests.examples import few

STEPS, LR, SIZE = 8, 0.05, 4


def clients_of(seed, count):
    """f_i(x) = ½ (x - b_i)' D_i (x - b_i), D_i diagonal: curvatures and optima differ, so FedAvg's fixed point is not
    the optimum.
    """
    draw = np.random.default_rng(seed)
    return draw.uniform(0.2, 3.0, (count, SIZE)), draw.normal(scale=3.0, size=(count, SIZE))


def optimum(curvatures, centres, weights):
    return (weights[:, None] * curvatures * centres).sum(0) / (weights[:, None] * curvatures).sum(0)


def local(x, curvature, centre, correction):
    """K steps of SGD on g + c - c_i; the new y, and the mean of the uncorrected gradients."""
    y, gradients = x.copy(), []
    for _ in range(STEPS):
        gradients.append(curvature * (y - centre))
        y = y - LR * (gradients[-1] + correction)
    return y, np.mean(gradients, axis=0)


def by_the_paper(curvatures, centres, rounds, selections):
    """Algorithm 1 with option II and global step size 1, equal weights: c and all c_i kept as the paper updates
    them."""
    count = len(curvatures)
    x, c, own = np.zeros(SIZE), np.zeros(SIZE), np.zeros((count, SIZE))
    for chosen in selections[:rounds]:
        moved, changed = [], []
        for i in chosen:
            y, _ = local(x, curvatures[i], centres[i], c - own[i])
            new = own[i] - c + (x - y) / (STEPS * LR)
            moved.append(y - x)
            changed.append(new - own[i])
            own[i] = new
        x, c = x + np.mean(moved, axis=0), c + len(chosen) / count * np.mean(changed, axis=0)
    return x, c


def by_ours(curvatures, centres, weights, selections):
    """The same with the server's controls; `weights(chosen)` gives a weight to each."""
    x, controls = np.zeros(SIZE), {}
    for chosen in selections:
        correction, shares, moved, sent = corrections(controls, adapter(x).form), weights(chosen), [], {}
        for i, share in zip(chosen, shares, strict=True):
            y, control = local(x, curvatures[i], centres[i], vector(correction.of(i)))
            moved.append(share * (y - x))
            sent[i] = ClientControl(share, adapter(control))
        x, controls = x + np.sum(moved, axis=0), controls_after(controls, sent, len(curvatures))
    return x, vector(server_control(controls, adapter(x).form))


def equally(chosen):
    return [1 / len(chosen)] * len(chosen)


@given(seed=st.integers(0, 9999), count=st.integers(2, 6), rounds=st.integers(1, 8))
@settings(max_examples=few(40), deadline=None)
def test_is_the_papers_option_two_under_sgd_whoever_takes_part(seed, count, rounds):
    """The mean of the gradients is c_i - c + (x - y) / (K lr), and the sum of what is kept the paper's running c."""
    curvatures, centres = clients_of(seed, count)
    draw = np.random.default_rng(seed)
    selections = [
        sorted(draw.choice(count, draw.integers(1, count + 1), replace=False).tolist()) for _ in range(rounds)
    ]
    paper = by_the_paper(curvatures, centres, rounds, selections)
    ours = by_ours(curvatures, centres, equally, selections)
    np.testing.assert_allclose(ours, paper, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_reaches_the_optimum_where_fedavg_does_not(seed):
    curvatures, centres = clients_of(seed, 5)
    best = optimum(curvatures, centres, np.full(5, 0.2))
    x = np.zeros(SIZE)
    for _ in range(400):
        x = np.mean(
            [local(x, curvature, centre, 0.0)[0] for curvature, centre in zip(curvatures, centres, strict=True)], axis=0
        )
    assert np.abs(x - best).max() > 0.05
    found, control = by_ours(curvatures, centres, equally, [range(5)] * 400)
    np.testing.assert_allclose(found, best, atol=1e-4)
    np.testing.assert_allclose(control, 0, atol=1e-3)


def test_with_weights_it_reaches_the_optimum_of_the_weighted_objective():
    curvatures, centres = clients_of(7, 4)
    weights = np.array([0.6, 0.2, 0.15, 0.05])
    found, _ = by_ours(curvatures, centres, lambda chosen: weights[list(chosen)], [range(4)] * 400)
    np.testing.assert_allclose(found, optimum(curvatures, centres, weights), atol=1e-4)


def test_a_client_without_weight_has_no_say_in_the_direction():
    form = adapter(np.zeros(SIZE)).form
    sent = {0: ClientControl(1.0, adapter(np.ones(SIZE))), 1: ClientControl(0.0, adapter(np.full(SIZE, 1e30)))}
    np.testing.assert_array_equal(vector(server_control(controls_after({}, sent, 2), form)), np.ones(SIZE))


def test_who_is_absent_keeps_its_control_and_the_order_of_arrival_does_not_matter():
    form = adapter(np.zeros(SIZE)).form
    first = controls_after({}, {2: ClientControl(1.0, adapter(np.full(SIZE, 0.1)))}, 3)
    both = [ClientControl(0.4, adapter(np.full(SIZE, 0.7))), ClientControl(0.6, adapter(np.full(SIZE, 0.3)))]
    one = controls_after(first, {0: both[0], 1: both[1]}, 3)
    other = controls_after(first, {1: both[1], 0: both[0]}, 3)
    assert list(one) == list(other) == [0, 1, 2]
    assert server_control(one, form).sha256 == server_control(other, form).sha256
    np.testing.assert_allclose(
        vector(server_control(one, form)), 1 / 3 * 0.1 + 2 / 3 * (0.4 * 0.7 + 0.6 * 0.3), rtol=1e-6
    )


def test_nobody_has_sent_any():
    assert not vector(server_control({}, adapter(np.zeros(SIZE)).form)).any()


def test_a_control_of_another_form_is_refused():
    with pytest.raises(AdapterError):
        server_control({0: ClientControl(1.0, adapter(np.zeros(SIZE + 1)))}, adapter(np.zeros(SIZE)).form)
