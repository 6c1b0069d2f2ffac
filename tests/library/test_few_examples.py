"""A run says what it decides by too few examples, and nothing where there are enough."""

import pytest

from fccl.config import load_settings
from fccl.library.few_examples import FEW, cautions
from tests.view import histories

LEARN, VALIDATION = "learn split has only", "validation split has only"


def said(learn=100, validation=100, **settings):
    """The lines on data with so many examples of each kind in both splits."""
    manifest = histories.manifest(3)
    counts = {"learn": learn, "validation": validation}
    counts = manifest.counts | {split: {"sft": count, "va": count} for split, count in counts.items()}
    return list(cautions(load_settings(settings), manifest.model_copy(update={"counts": counts})))


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
