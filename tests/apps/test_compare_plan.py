import io
import json

import pytest
from rich.console import Console

from fccl.apps.compare import design
from fccl.apps.compare_choice import Choice
from fccl.apps.compare_plan import calibration, known, measures, to_run
from fccl.compare import evidence
from fccl.compare.flat import MOST_ROUNDS
from fccl.compare.methods import METHODS
from fccl.compare.plan import Planner
from fccl.compare.scenarios import SCENARIOS
from fccl.compare.store import keep, to_do
from fccl.compare.values import RoundSummary, TrialResult
from fccl.config import load_settings
from fccl.errors import SettingsError
from fccl.paths import ComparePaths

FLAT_AFTER = 6  # rounds, of the made-up runs


@pytest.fixture
def planner(tiny_model_path, tiny_model, tmp_path):
    """A planner of four clients over 80 instructions."""
    rows = [{"instruction": f"Say {n}", "output": f"It is {n}.", "topic": "ab"[n % 2]} for n in range(80)]
    (tmp_path / "sft.json").write_text(json.dumps(rows))
    settings = {"model_name": str(tiny_model_path), "sft_data": str(tmp_path / "sft.json"), "va_data": "synthetic"}
    settings |= {"num_clients": 4, "lora_r": 4, "lora_alpha": 8.0, "max_length": 128, "fed_rounds": 2, "threads": 1}
    return Planner(design(load_settings(settings), tiny_model, 1), ComparePaths(tmp_path / "compare"))


@pytest.fixture
def run(planner):
    """Keeps a made-up result of every trial in the place of running it; `batches` has what it was asked for."""
    batches = []

    def made_up(trials):
        batches.append(list(trials))
        for one in to_do(planner.paths, trials):
            own = FLAT_AFTER if one.spec.until_flat else one.spec.rounds
            also = [(spec, spec.rounds, 0.0) for spec in (*one.begins, one.spec.with_rounds(own))]
            for spec, count, seconds in (*also, (one.spec, own, 600.0 * (own - 1))):
                rounds = tuple(RoundSummary(clients=(0,), weights=None, loss=1.0) for _ in range(count))
                found = TrialResult(spec=spec, seconds=seconds, training_seconds=1, weighing_seconds=0, rounds=rounds)
                keep(planner.paths, found)

    made_up.batches = batches
    return made_up


def choice(primary, seeds=(203, 204)):
    short = SCENARIOS["shuffled"]
    methods = tuple(METHODS[name] for name in ("fedavg", "verified", "oracle"))
    return Choice((short, short.unhurried), methods, seeds, jobs=1, primary=primary)


def test_rounds_are_measured_before_anything_is_planned(planner, run):
    fit = to_run(Console(file=io.StringIO()), planner, choice(primary=False), run)
    assert [[one.spec.until_flat for one in batch] for batch in run.batches] == [[True, True]]
    assert [one.spec.plan.fed_rounds for one in fit.trials] == [2, 2, 2, FLAT_AFTER, FLAT_AFTER, FLAT_AFTER] * 2
    assert fit.left_out == ()


def test_the_primary_set_is_measured_told_and_cut_to_its_budget(planner, run, monkeypatch):
    """A round takes ten minutes, and first ones are there. The two measures take 50 minutes each, and are the oracle's
    trials; FedAvg and verified take an hour each in each seed. Within 2.5 hours of two cores the second does not fit.
    """
    monkeypatch.setattr(evidence, "HOURS", 2.5)
    said = io.StringIO()
    fit = to_run(Console(file=said, width=200), planner, choice(primary=True), run)
    first, long = run.batches
    assert {one.seed for one in first} == {203}
    assert {one.spec.plan.fed_rounds for one in first} == {2}
    assert [one.spec.plan.fed_rounds for one in long] == [MOST_ROUNDS, MOST_ROUNDS]
    assert [(one.scenario, one.seed) for one in fit.trials[::3]] == [
        ("shuffled", 203),
        ("shuffled-flat", 203),
    ]
    left_out = ("shuffled, seed 204: 2.00 core hours more", "shuffled-flat, seed 204: 2.00 core hours more")
    assert fit.left_out == left_out
    text = said.getvalue()
    parts = ("At most", "With the rounds that were measured", "Not run, beyond 2.5 hours")
    assert sorted(map(text.index, parts)) == list(map(text.index, parts))
    assert "fedavg, sft" in text


def test_the_first_cells_are_of_the_first_seed_and_of_every_phase(planner):
    found = calibration(planner, Choice(evidence.scenarios(), evidence.methods(), (203, 204), 1, primary=True))
    assert {(one.scenario, one.seed) for one in found} == {("clean-non-iid", 203), ("clean-va", 203)}


def test_what_has_no_pair_has_two_seeds_and_the_longest_rounds_are_counted_once(planner, run):
    """The most that the set may take: no federation is in it twice."""
    said = io.StringIO()
    fit = to_run(Console(file=said, width=200), planner, choice(primary=True, seeds=(203, 204, 205)), run)
    assert {one.method for one in fit.trials if one.seed == 205} == {"fedavg", "oracle"}
    most = said.getvalue().partition("With the rounds that were measured")[0]
    cells = {row.split()[0]: row.split()[2] for row in most.splitlines() if ", sft" in row}
    assert cells == {"fedavg,": "3", "verified,": "2", "oracle,": "3"}


def test_known_is_what_is_finished_whole_scenarios_of_a_seed_and_the_rest_by_name(planner, run):
    asked = choice(primary=True)
    with pytest.raises(SettingsError, match="no scenario that is finished"):
        known(planner, asked)
    run(measures(planner, asked))
    run(list(planner.trials(asked.scenarios[:1], asked.methods, (203,))))
    fit = known(planner, asked)
    assert {(one.scenario, one.seed) for one in fit.trials} == {("shuffled", 203)}
    assert fit.left_out == (
        "shuffled-flat, seed 203: not finished yet",
        "shuffled, seed 204: not finished yet",
        "shuffled-flat, seed 204: not finished yet",
    )


def test_nothing_is_measured_where_nothing_goes_on_until_flat(planner):
    assert measures(planner, Choice((SCENARIOS["shuffled"],), (METHODS["fedavg"],), (1,), 1)) == []
