"""A run says what it decides by too few examples or topics, and nothing where there are enough."""

import pytest

from fccl.config import load_settings
from fccl.evaluation.validation import proportional_draw
from fccl.library.few_examples import FEW, cautions
from fccl.specs import named_seed
from tests.view import histories

TEMPERED = {"contribution_source": "tempered"}
LEARN, VALIDATION = "learn split has only", "validation split has only"


def said(learn=100, validation=100, topics="abcde", va_topics="abcde", **settings):
    """The lines on data with so many examples of each kind in both splits, and on such topics in `learn`."""
    manifest = histories.manifest(3)
    counts = {"learn": learn, "validation": validation}
    counts = manifest.counts | {split: {"sft": count, "va": count} for split, count in counts.items()}
    by_phase = {"sft": list(topics), "va": list(va_topics)}
    return list(cautions(load_settings(settings), manifest.model_copy(update={"counts": counts}), by_phase))


@pytest.mark.parametrize("source", ["verified", "tempered", "leave_one_out", "shapley", "fltrust", "line_search"])
def test_weights_by_few_examples_of_the_learn_split_are_called_chance(source):
    (line,) = said(learn=FEW - 1, contribution_source=source)
    assert f"{LEARN} 15 instructions and 15 preference pairs" in line
    assert f"CONTRIBUTION_SOURCE={source}" in line
    assert said(learn=FEW, contribution_source=source) == []


@pytest.mark.parametrize(
    "settings",
    [{"contribution_source": "data_size"}, {"contribution_mode": "fedavg"}, {"contribution_mode": "uniform"}],
)
def test_a_rule_that_reads_no_learn_split_is_not_warned_of(settings):
    assert said(learn=1, **settings) == []


def test_patience_by_few_examples_of_the_validation_split_is_called_chance():
    (line,) = said(validation=2, patience=1)
    assert f"{VALIDATION} 2 instructions and 2 preference pairs: PATIENCE=1 may end a phase by chance" in line
    assert said(validation=2) == []
    assert said(validation=FEW, patience=1) == []


def test_only_phases_that_have_rounds_count():
    (line,) = said(learn=1, contribution_source="verified", sft_rounds=0)
    assert f"{LEARN} 1 preference pair:" in line


def test_few_topics_of_the_learn_split_are_said_to_leave_weights_by_samples():
    (line,) = said(topics="aabbc", **TEMPERED)
    assert "the server draws instructions of 3 topics in some rounds: CONTRIBUTION_SOURCE=tempered needs 4" in line
    assert "by their samples there, as FedAvg does" in line
    (line,) = said(topics="abc", va_topics="a", **TEMPERED)
    assert "instructions of 3 topics and preference pairs of 1 topic in some rounds:" in line
    assert said(topics="aabbcd", **TEMPERED) == []


def test_examples_without_a_topic_are_each_their_own():
    assert said(topics=["", "", "", ""], va_topics=["a", "b", "", ""], **TEMPERED) == []
    (line,) = said(topics=["", "", ""], **TEMPERED)
    assert "3 topics" in line


def test_of_few_drawn_examples_there_are_few_topics():
    (line,) = said(verify_examples=3, **TEMPERED)
    assert "instructions of 3 topics and preference pairs of 3 topics" in line


@pytest.mark.parametrize(("topics", "fewest"), [("a" * 93 + "bcd", 2), ("a" * 80 + "bcd" * 5, 4)])
def test_topics_that_a_draw_may_miss_do_not_count(topics, fewest):
    """By the draws themselves: a third of the examples is drawn in each round."""
    found = said(topics=topics, verify_examples=32, **TEMPERED)
    drawn = [
        {topics[place] for place in proportional_draw(topics, 32, named_seed(42, "verification", number))}
        for number in range(3)
    ]
    assert min(map(len, drawn)) == fewest
    assert bool(found) == (fewest < 4)
    assert all(f"instructions of {fewest} topics" in line for line in found)


@pytest.mark.parametrize(
    "settings",
    [{"contribution_source": "verified"}, TEMPERED | {"contribution_mode": "fedavg"}, TEMPERED | {"sft_rounds": 0}],
)
def test_a_rule_that_needs_no_topics_and_a_phase_without_rounds_are_not_warned_of(settings):
    assert said(topics="a", **settings) == []
