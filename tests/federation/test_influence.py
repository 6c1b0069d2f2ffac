"""Influence: sets of clients by a formula of the test, exact Shapley values, drawn orders."""

import dataclasses
import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.aggregation.rules import aggregation
from fccl.errors import FederationError
from fccl.federation.influence import (
    MOST_SETS,
    Coalitions,
    MeasuredLoss,
    drawn_orders,
    every_set,
    influence,
    results_of,
    usual_orders,
)
from fccl.federation.kept_rounds import kept_round
from fccl.testing.toy import ToyLearner, federation
from tests.examples import few
from tests.federation.toy_runs import CLIENTS, ROUNDS, START, conduct, toy_loss

MEASURES = [MeasuredLoss("instructions", "nats", 5), MeasuredLoss("pairs", "nats", 5)]


def losses_of(adapter):
    """Two losses that do not order clients alike."""
    return toy_loss("sft", adapter, None).loss, float(adapter.tensors["w"].abs().sum())


def coalitions_of(logs, name="fedavg", numbers=range(ROUNDS), **changes):
    return Coalitions(logs, aggregation(name), federation().plan, numbers, losses_of, **changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return conduct(tmp_path_factory.mktemp("run"))


def by_hand(results, members):
    """The final numbers of a set: each round moves by its members' mean change, weights divided by their sum."""
    numbers = START.adapter.tensors["w"].double()
    for result in results:
        start = result.inputs.task.adapter.tensors["w"].double()
        own = [(w, u) for w, u in zip(result.record.weights, result.updates, strict=True) if u.client_id in members]
        total = sum(weight for weight, _ in own)
        if total:
            change = sum(weight / total * (u.adapter.load().tensors["w"].double() - start) for weight, u in own)
            numbers = numbers + change
    return numbers.tolist()


@pytest.mark.parametrize("size", range(CLIENTS + 1))
def test_the_model_of_a_set_is_that_of_the_formula(run, size):
    logs, results = run
    coalitions = coalitions_of(logs)
    for members in itertools.combinations(range(CLIENTS), size):
        found = coalitions.final(frozenset(members)).tensors["w"].tolist()
        assert found == pytest.approx(by_hand(results, members), abs=1e-5)


@pytest.mark.parametrize("name", ["fedavg", "fedadam", "median", "scaffold"])
def test_the_set_of_all_clients_has_the_final_model(tmp_path, name):
    logs, results = conduct(tmp_path, federation(aggregation=aggregation(name)))
    everybody = frozenset(range(CLIENTS))
    assert coalitions_of(logs, name).final(everybody).sha256 == results[-1].state.adapter.sha256


def test_so_it_has_where_a_phase_goes_on_from_its_best_round(tmp_path):
    fed = dataclasses.replace(federation(rounds=3, result_round="best"), validate=toy_loss)
    logs, results = conduct(tmp_path, fed)
    coalitions = Coalitions(logs, aggregation("fedavg"), fed.plan, range(6), losses_of, results_of(logs))
    assert coalitions.final(frozenset(range(CLIENTS))).sha256 == results[-1].state.result.sha256


@pytest.mark.parametrize("orders", [0, 3])
def test_the_values_sum_to_the_fall_of_the_loss(run, orders):
    logs, _ = run
    found = influence(coalitions_of(logs), MEASURES, 7, "run", orders)
    for each in found.measures:
        assert math.fsum(client.shapley for client in each.clients) == pytest.approx(each.before - each.after)
    assert (found.orders, found.rounds, found.first_round) == (orders, ROUNDS, 0)


def test_left_out_is_the_loss_of_the_others_model(run):
    logs, results = run
    found = influence(coalitions_of(logs), MEASURES, 7, "run").measures[1]
    for client in found.clients:
        others = set(range(CLIENTS)) - {client.client_id}
        loss = sum(map(abs, by_hand(results, others)))
        assert client.left_out == pytest.approx(loss - found.after, abs=1e-5)


def test_exact_values_are_means_over_all_orders(run):
    logs, results = run
    values, errors = every_set(coalitions_of(logs), range(CLIENTS))
    orders = list(itertools.permutations(range(CLIENTS)))
    for client in range(CLIENTS):
        brought = []
        for order in orders:
            before = set(order[: order.index(client)])
            without, beside = (sum(map(abs, by_hand(results, members))) for members in (before, before | {client}))
            brought.append(without - beside)
        assert values[client, 1] == pytest.approx(math.fsum(brought) / len(orders), abs=1e-5)
    assert not errors.any()


def test_drawn_orders_come_near_the_exact_values_as_their_errors_say(run):
    logs, _ = run
    coalitions = coalitions_of(logs)
    exact, _ = every_set(coalitions, range(CLIENTS))
    drawn, errors = drawn_orders(coalitions, range(CLIENTS), 400, seed=7)
    assert (abs(drawn - exact) <= 5 * errors + 1e-9).all()
    assert (errors < abs(exact).max() / 10).all()


def test_a_client_that_never_counts_has_no_row_and_one_that_fails_changes_nothing(tmp_path):
    logs, _ = conduct(tmp_path, learner=ToyLearner(broken=frozenset({2})))
    coalitions = coalitions_of(logs)
    assert coalitions.clients == (0, 1, 3)
    assert coalitions.losses(frozenset({0, 2})) == coalitions.losses(frozenset({0}))


@given(st.integers(2, 300))
@settings(max_examples=few(100))
def test_the_usual_orders_stay_near_the_most_sets_and_have_an_error(clients):
    orders = usual_orders(clients)
    assert orders >= 2
    assert orders == 2 or orders * (clients - 1) + clients <= MOST_SETS


def test_rules_that_need_more_updates_than_a_set_has_are_one_line(tmp_path):
    fed = federation(clients=6, rounds=1, aggregation=aggregation("krum", max_bad_clients=1))
    logs, _ = conduct(tmp_path, fed)
    coalitions = Coalitions(logs, fed.aggregation, fed.plan, range(2), losses_of)
    with pytest.raises(FederationError, match="AGGREGATION=krum"):
        influence(coalitions, MEASURES, 7, "run")


def test_one_client_alone_has_no_influence_beside_others(tmp_path):
    logs, _ = conduct(tmp_path, federation(clients=1))
    with pytest.raises(FederationError, match="fewer than two"):
        influence(coalitions_of(logs), MEASURES, 7, "run")


def test_each_set_is_made_once(run):
    logs, _ = run
    heard = []
    coalitions = coalitions_of(logs, on_set=heard.append)
    found = influence(coalitions, MEASURES, 7, "run")
    assert found.coalitions == 2**CLIENTS == len(heard)
    assert coalitions.rounds_of(0) == sum(0 in kept_round(logs, number).record.clients for number in range(ROUNDS))
