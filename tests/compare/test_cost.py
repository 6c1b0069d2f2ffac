from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.compare.cost import HOUR, Rates, cost_table, fitted
from fccl.compare.trial import Trial
from fccl.compare.values import RoundSummary
from tests.compare.test_verdicts import SPEC
from tests.compare.test_verdicts import trial as result


def cell(scenario, method, seed, rounds=3, phase="sft"):
    plan = SPEC.plan.model_copy(update={"fed_rounds": rounds, "seed": seed})
    spec = SPEC.model_copy(update={"plan": plan, "phase": phase, "start": f"{scenario} {method}"})
    return Trial(scenario, method, seed, spec, Path())


RATES = Rates({("fedavg", "sft"): 10.0, ("verified", "sft"): 20.0, ("fedavg", "va"): 5.0})


def measured(method, seed, rounds, seconds):
    return cell("a", method, seed, rounds), result([1.0]).model_copy(update={"seconds": seconds})


def test_a_rate_is_the_mean_over_all_that_is_finished_as_if_first_rounds_had_cost_nothing():
    done = [measured("fedavg", seed, rounds, seconds) for seed, rounds, seconds in ((1, 3, 30.0), (2, 11, 200.0))]
    rates = Rates.of(done)
    assert rates.seconds == {("fedavg", "sft"): pytest.approx((15.0 + 20.0) / 2)}
    assert rates.of_trial(done[0][0]) == 30.0
    assert rates.of_trial(cell("b", "fedavg", 1)) == pytest.approx(3 * 17.5)


def test_a_run_that_ended_when_it_was_flat_took_its_own_rounds():
    rounds = tuple(RoundSummary(clients=(0,), weights=None, loss=1.0) for _ in range(6))
    early = result([1.0]).model_copy(update={"seconds": 60.0, "rounds": rounds})
    rates = Rates.of([(cell("a", "fedavg", 1, rounds=24), early)])
    assert rates.seconds["fedavg", "sft"] == pytest.approx(12.0)


def test_a_beginning_measures_nothing_and_costs_nothing():
    begun, whole = measured("fedavg", 1, 3, 0.0), measured("fedavg", 2, 3, 20.0)
    rates = Rates.of([begun, whole])
    assert rates.seconds["fedavg", "sft"] == pytest.approx(10.0)
    assert rates.of_trial(begun[0]) == 0.0


def test_a_method_that_was_not_measured_takes_as_long_as_the_slowest():
    assert RATES.of_trial(cell("a", "median", 1)) == 60.0
    assert RATES.of_trial(cell("a", "median", 1, phase="va")) == 15.0
    assert RATES.of_trial(cell("a", "fedavg", 1, rounds=24)) == 240.0


def test_a_trial_that_a_longer_one_begins_with_is_paid_with_that():
    short = cell("a", "fedavg", 1)
    long = Trial("a-flat", "fedavg", 1, short.spec.with_rounds(10), Path())
    fit = fitted([short, long], RATES, 100.0)
    assert (fit.seconds, fit.trials) == (100.0, (short, long))
    assert fitted([short, long], RATES, 99.0).trials == ()
    rows = [tuple(each.text for each in row) for row in cost_table([short, long], RATES, 1).cells]
    assert rows == [("fedavg, sft", "1", "100", "0.03"), ("all", "1", "100", "0.03")]


TRIALS = [cell(scenario, method, seed) for seed in (1, 2) for scenario in "ab" for method in ("fedavg", "verified")]


@given(st.floats(0, 500))
def test_what_fits_is_whole_scenarios_of_a_seed_within_the_budget(budget):
    fit = fitted(TRIALS, RATES, budget)
    assert fit.seconds <= budget
    assert fit.seconds == pytest.approx(sum(map(RATES.of_trial, fit.trials)))
    groups = {(trial.scenario, trial.seed) for trial in fit.trials}
    assert len(fit.trials) == 2 * len(groups)
    assert len(groups) + len(fit.left_out) == 4


def test_earlier_seeds_come_first_and_what_is_left_out_is_named():
    fit = fitted(TRIALS, RATES, 2 * 90.0)
    assert {trial.seed for trial in fit.trials} == {1}
    assert fit.left_out == ("a, seed 2: 0.03 core hours more", "b, seed 2: 0.03 core hours more")


def test_a_cell_that_two_scenarios_share_is_paid_once():
    shared = [TRIALS[0], Trial("b", "fedavg", 1, TRIALS[0].spec, Path())]
    assert fitted(shared, RATES, 30.0).seconds == 30.0
    assert len(fitted(shared, RATES, 30.0).trials) == 2


def test_the_table_has_every_method_and_phase_and_their_sum():
    table = cost_table([*TRIALS, cell("c", "fedavg", 1, phase="va")], RATES, 2)
    rows = [tuple(each.text for each in row) for row in table.cells]
    assert rows == [
        ("fedavg, sft", "4", "30", "0.03"),
        ("verified, sft", "4", "60", "0.07"),
        ("fedavg, va", "1", "15", "0.00"),
        ("all", "9", "42", f"{375 / HOUR:.2f}"),
    ]
    assert "On 2 cores: 0.1 hours" in table.note
