"""A forecast has the seconds of a machine whose rates are known, whatever part of the run the probe was."""

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.federation.workload import PlannedRound, Work
from fccl.library.forecasting import Layout, PhaseRates, evaluation_seconds
from fccl.library.probe import EvaluationProbe
from fccl.records.run import RoundSeconds
from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.transports.in_process import InProcessTransport
from tests.examples import few

RECORD = next(iter(federation(clients=1, rounds=1).run(START, InProcessTransport(ToyLearner(), shard)))).record
ONE = Layout(processes=1, together=False, first_scales={"sft": False, "va": True})


def machine(tokens, rate, beside, server):
    """A phase's rounds on a machine that takes `rate` seconds a token, and `beside` more in the first round."""
    planned = [PlannedRound(number, "va", {0: Work(1, 1, tokens, tokens)}) for number in range(3)]
    spent = [
        RoundSeconds(training=rate * tokens + beside * (number == 0), validation=server, rest=server)
        for number in range(3)
    ]
    return planned, [RECORD.model_copy(update={"spent": each, "seconds": each.total}) for each in spent]


@given(st.integers(1, 10**4), st.integers(1, 10**6), st.floats(1e-6, 1), st.floats(0, 100), st.floats(0, 50))
@settings(max_examples=few(100), deadline=None)
def test_training_goes_by_tokens_and_the_servers_part_stays(small, large, rate, beside, server):
    rates = PhaseRates.of(*machine(small, rate, beside, server), ONE)
    later = rates.seconds(large, 0.0, opens=False, more=1.0)
    assert later.training == pytest.approx(rate * large)
    assert (later.validation, later.rest) == (server, server)
    assert rates.seconds(large, large, opens=True, more=1.0).training == pytest.approx(
        rate * large + beside * large / small, abs=1e-6 * large / small
    )


def test_what_the_first_round_costs_once_does_not_grow_with_the_examples():
    fixed = Layout(processes=1, together=False, first_scales={"va": False})
    rates = PhaseRates.of(*machine(10, 0.5, 7.0, 0.0), fixed)
    assert rates.seconds(100.0, 100.0, opens=True, more=1.0).training == pytest.approx(50.0 + 7.0)
    assert rates.seconds(100.0, 0.0, opens=False, more=1.0).training == pytest.approx(50.0)


@pytest.mark.parametrize(("processes", "load"), [(1, 12.0), (2, 7.0), (3, 5.0), (9, 5.0)])
def test_the_load_is_that_of_the_process_with_most(processes, load):
    layout = Layout(processes, together=False, first_scales={})
    assert layout.load({client: Work(n, 1, n, n) for client, n in enumerate((5, 4, 3))}) == load


def test_clients_are_shared_out_by_examples_whatever_their_tokens():
    """The largest client has a process for itself, though the two others have more to read."""
    work = {0: Work(10, 1, 100, 1), 1: Work(9, 1, 300, 1), 2: Work(8, 1, 350, 1)}
    assert Layout(2, together=False, first_scales={}).load(work) == 650.0


def test_clients_in_one_batch_are_one_load():
    assert Layout(1, together=True, first_scales={}).load({0: Work(1, 1, 5, 5), 1: Work(1, 1, 4, 4)}) == 9.0
    assert Layout(1, together=False, first_scales={}).load({}) == 0.0


def test_an_evaluation_goes_by_its_examples_beyond_the_few_and_by_its_generations():
    probe = SimpleNamespace(evaluated=EvaluationProbe(12, 2.0, 32, 6.0, 6, 1.5))
    assert evaluation_seconds(probe, 112, 6) == pytest.approx(2.0 + 100 * 0.2 + 1.5)
    assert evaluation_seconds(probe, 112, 12) == pytest.approx(2.0 + 100 * 0.2 + 3.0)
    assert evaluation_seconds(probe, 8, 0) == pytest.approx(2.0)
    assert evaluation_seconds(SimpleNamespace(evaluated=None), 112, 6) == 0.0
    all_there_are = SimpleNamespace(evaluated=EvaluationProbe(8, 2.0, 8, 1.9, 0, 0.0))
    assert evaluation_seconds(all_there_are, 8, 0) == pytest.approx(2.0)
