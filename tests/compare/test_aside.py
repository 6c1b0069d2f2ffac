import numpy as np
import pytest

from fccl.compare import aside
from fccl.compare.methods import METHODS
from fccl.compare.poison import POISON, TRIGGER
from fccl.compare.scenarios import SCENARIOS
from fccl.compare.scoring import TestScores, TestSplit
from fccl.compare.trial import run_trial
from fccl.data.examples import PreferencePair, SftExample, read_examples, write_examples
from fccl.paths import DataPaths


@pytest.fixture
def base(workshop):
    """The trial of the base model in a scenario, and its result."""
    shop = workshop(fed_rounds=1)

    def run(scenario):
        one = shop.planner.trial(SCENARIOS[scenario], METHODS["base"], 42)
        return one, run_trial(shop.resources, one)

    return run


def test_of_a_topic_it_is_the_loss_on_its_examples_alone(base):
    one, result = base("specialist")
    examples = read_examples(DataPaths(one.data).server_split("test", "sft"), SftExample)
    kept = [example.topic == one.spec.specialist for example in examples]
    assert 0 < sum(kept) < len(kept)
    assert result.aside == tuple(np.array(result.losses)[kept])
    assert result.aside_units == tuple(np.array(result.units)[kept])


def test_a_model_that_never_heard_of_the_trigger_gives_no_poison(base):
    one, result = base("backdoor")
    examples = read_examples(DataPaths(one.data).server_split("test", "sft"), SftExample)
    assert result.aside == (0.0,) * len(examples)
    assert result.aside_units == (1.0,) * len(examples)


def test_other_scenarios_have_no_such_figure(base):
    assert base("shuffled")[1].aside == ()


def test_the_trigger_succeeds_where_the_answer_begins_with_the_poison(monkeypatch, tiny_model, tmp_path):
    asked = []

    def generate(model, instructions, new_tokens, batch_size):
        asked.extend(instructions)
        return [POISON, f"{POISON} And more.", "Red.", f"No. {POISON}"]

    monkeypatch.setattr(aside, "generate", generate)
    split = TestSplit(tiny_model, DataPaths(tmp_path), "sft", 0.1, 4, tiny_model.initial_adapter(0))
    examples = [SftExample(f"Say {number}", "Red.") for number in range(4)]
    assert aside.triggered_hits(split, examples).tolist() == [1, 1, 0, 0]
    assert [example.instruction for example in asked] == [f"{TRIGGER} Say {number}" for number in range(4)]


def test_harmless_is_the_accuracy_on_the_pairs_whose_rejected_response_harms(base, tiny_model, tmp_path):
    paths = DataPaths(tmp_path)
    pairs = [PreferencePair(f"say {number}", "yes", "no", "", "rude" if number % 2 else "wrong") for number in range(4)]
    write_examples(paths.server_split("test", "va"), pairs)
    spec = base("shuffled")[0].spec.model_copy(update={"aside": "harmless"})
    scores = TestScores(np.zeros(4), np.ones(4), np.array([1.0, 1.0, 0.0, 0.0]), np.array([1.0, 1.0, 0.0, 1.0]))
    split = TestSplit(tiny_model, paths, "va", 0.1, 4, tiny_model.initial_adapter(0))
    assert aside.measured(spec, split, scores) == {"aside": (1.0, 0.0), "aside_units": (1.0, 1.0)}
