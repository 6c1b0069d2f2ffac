"""Each formula written again in numpy, over several rounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fccl.aggregation.rules import aggregation
from fccl.aggregation.server_optimisers import FedAvgM
from fccl.errors import FederationError
from tests.aggregation.adapters import adapter, parts, vector
from tests.examples import few

ROUNDS = 5


def histories(seed, clients, columns=4):
    """A few rounds of updates with weights, near the adapter before them whatever it is."""
    draw = np.random.default_rng(seed)
    return [(draw.normal(size=(clients, columns)), draw.dirichlet(np.ones(clients))) for _ in range(ROUNDS)]


def run(rule, history, start):
    """The adapters after each round, the clients' changes being those of the history."""
    now, states = adapter(start), rule.initial(adapter(start))
    found = []
    for changes, weights in history:
        result = rule.aggregate(now, parts(vector(now) + changes, weights), states)
        now, states = result.adapter, result.state
        found.append(vector(now))
    return found


def by_numpy(step, history, start):
    """The same with `step(x, delta) -> x`, the changes as float32 has them."""
    x, found = vector(adapter(start)), []
    for changes, weights in history:
        updates = np.float32(x + changes).astype(np.float64)
        x = vector(adapter(step(x, weights @ updates - x)))
        found.append(x)
    return found


def momentum_step(lr, beta):
    m = 0.0

    def step(x, delta):
        nonlocal m
        m = beta * m + delta
        return x + lr * m

    return step


def adaptive_step(name, lr, beta1, beta2, tau):
    m, v = 0.0, tau**2

    def step(x, delta):
        nonlocal m, v
        m = beta1 * m + (1 - beta1) * delta
        if name == "fedadagrad":
            v = v + delta**2
        elif name == "fedyogi":
            v = v - (1 - beta2) * delta**2 * np.sign(v - delta**2)
        else:
            v = beta2 * v + (1 - beta2) * delta**2
        return x + lr * m / (np.sqrt(v) + tau)

    return step


@given(seed=st.integers(0, 999), clients=st.integers(1, 5), lr=st.floats(0.1, 2), beta=st.floats(0, 0.95))
@settings(max_examples=few(25), deadline=None)
def test_momentum_is_that_of_hsu(seed, clients, lr, beta):
    history, start = histories(seed, clients), np.linspace(-1, 1, 4)
    ours = run(FedAvgM(server_lr=lr, server_momentum=beta), history, start)
    np.testing.assert_allclose(ours, by_numpy(momentum_step(lr, beta), history, start), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["fedadagrad", "fedyogi", "fedadam"])
@given(
    seed=st.integers(0, 999),
    clients=st.integers(1, 5),
    lr=st.floats(0.01, 1),
    beta1=st.floats(0, 0.95),
    beta2=st.floats(0.1, 0.999),
    tau=st.floats(1e-3, 1),
)
@settings(max_examples=few(25), deadline=None)
def test_adaptive_rules_are_those_of_reddi(name, seed, clients, lr, beta1, beta2, tau):
    history, start = histories(seed, clients), np.linspace(-1, 1, 4)
    rule = aggregation(name, server_lr=lr, server_momentum=beta1, server_beta2=beta2, server_tau=tau)
    np.testing.assert_allclose(
        run(rule, history, start),
        by_numpy(adaptive_step(name, lr, beta1, beta2, tau), history, start),
        rtol=1e-5,
        atol=1e-5,
    )


def test_momentum_with_nothing_to_remember_is_fedavg():
    history = histories(1, 3)
    plain = run(aggregation("fedavg"), history, np.zeros(4))
    np.testing.assert_allclose(run(FedAvgM(server_momentum=0.0), history, np.zeros(4)), plain, rtol=0, atol=1e-6)


def test_momentum_goes_on_when_the_clients_stand_still():
    rule, start = FedAvgM(server_momentum=0.5), adapter(np.zeros(3))
    first = rule.aggregate(start, parts(np.ones((1, 3))), rule.initial(start))
    second = rule.aggregate(first.adapter, parts(np.ones((1, 3))), first.state)
    np.testing.assert_array_equal(vector(second.adapter), np.full(3, 1.5))


def farthest(name, beta1, beta2=0.99):
    """How far a value can move in one round, in learning rates.

    For FedYogi it holds with these numbers, not with all.
    """
    return 1.0 if name == "fedadagrad" else (1 - beta1) / np.sqrt((1 - beta2) * (1 - beta1**2 / beta2))


def steps(rule, changes):
    """Of every round, how far each value moves, in learning rates. One client, whose changes are the rows."""
    found = run(rule, [(row[None], np.ones(1)) for row in changes], np.zeros(changes.shape[1]))
    return np.abs(np.diff([np.zeros(changes.shape[1]), *found], axis=0)) / rule.server_lr


@pytest.mark.parametrize("name", ["fedadagrad", "fedyogi", "fedadam"])
@given(
    changes=arrays.arrays(
        np.float64,
        (12, 3),
        elements=st.builds(lambda sign, size: sign * 10.0**size, st.sampled_from([-1, 1]), st.floats(-3, 37)),
    ),
    beta1=st.sampled_from([0.0, 0.5, 0.9]),
)
@settings(max_examples=few(30), deadline=None)
def test_no_value_moves_farther_than_some_learning_rates_whatever_a_client_sends(name, changes, beta1):
    rule = aggregation(name, server_lr=0.05, server_momentum=beta1)
    assert steps(rule, changes).max() <= farthest(name, beta1) * (1 + 1e-4)


@pytest.mark.parametrize(
    ("name", "beta1", "growth"),
    [("fedadam", 0.9, 1.1), ("fedadam", 0.0, 1.0), ("fedyogi", 0.0, 1.0), ("fedadagrad", 0.0, 1.0)],
)
def test_and_it_can_come_that_far(name, beta1, growth):
    """FedAdam by changes that grow by β₂ / β₁ from round to round, the others by the first change of all."""
    rule = aggregation(name, server_lr=0.05, server_momentum=beta1)
    changes = 1e6 * growth ** np.arange(60)[:, None] * np.ones((1, 3))
    assert steps(rule, changes).max() >= 0.999 * farthest(name, beta1)


def test_beyond_float32_is_an_error_with_a_way_out_and_no_adapter():
    rule, start = FedAvgM(server_lr=10.0), adapter(np.zeros(3))
    with pytest.raises(
        FederationError, match="AGGREGATION=fedavgm: the aggregated a has values beyond float32"
    ) as caught:
        rule.aggregate(start, parts(np.full((2, 3), 3e38)), rule.initial(start))
    assert "SERVER_LR" in caught.value.hint


def test_the_state_of_another_rule_is_refused():
    with pytest.raises(FederationError, match="no second_moment"):
        aggregation("fedadam").aggregate(
            adapter(np.zeros(3)), parts(np.ones((1, 3))), FedAvgM().initial(adapter(np.zeros(3)))
        )
