"""A first round that made the model worse is said, with the learning rate that it was trained with."""

import dataclasses
import math

import pytest

from fccl.federation.run import Run
from fccl.federation.run_folder import RunFolder
from fccl.records.run import Validation
from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.tracking.listener import RunListener
from fccl.transports.in_process import InProcessTransport


class Lines(RunListener):
    def __init__(self):
        self.lines = []

    def told(self, line):
        self.lines.append(line)


def warnings_of(folder, losses, resume=False):
    """A run of two rounds of each phase whose validation losses are these, the base model's first."""
    coming = iter(losses)
    fed = dataclasses.replace(federation(2, 2), validate=lambda *_: Validation(loss=next(coming), examples=3))
    heard = Lines()
    run = Run(fed, RunFolder.at(folder), lambda: START.adapter, heard)
    for _ in run.rounds(InProcessTransport(ToyLearner(), shard), resume):
        pass
    return [line for line in heard.lines if "_LR" in line]


@pytest.mark.parametrize(
    ("losses", "warned"),
    [
        ([5.0, 5.5, 9.0, 0.6, 0.7], True),
        ([5.0, 5.0, 9.0, 0.6, 0.7], False),  # as good as before
        ([5.0, 4.0, 9.0, 0.6, 9.0], False),  # later rounds speak for themselves
    ],
)
def test_a_first_round_above_the_base_model_names_the_learning_rate_and_no_other_round_does(tmp_path, losses, warned):
    said = warnings_of(tmp_path, losses)
    assert len(said) == warned
    assert not warned or "from 5.000 to 5.500: SFT_LR=0.1 " in said[0]


@pytest.mark.parametrize(
    ("losses", "warned"),
    [
        ([5.0, 4.0, 3.0, 0.8, 0.9], True),
        ([5.0, 4.0, 3.0, math.log(2) + 1e-9, 0.9], False),  # no farther than rounding goes
        ([5.0, 4.0, 3.0, 0.6, 0.9], False),
    ],
)
def test_so_does_a_first_round_on_pairs_that_is_above_the_loss_of_the_reference_itself(tmp_path, losses, warned):
    said = warnings_of(tmp_path, losses)
    assert len(said) == warned
    assert not warned or "The first VA round raised the validation loss from 0.693 to 0.800: VA_LR=0.1 " in said[0]


def test_a_run_that_was_killed_in_its_first_round_is_warned_when_it_goes_on(tmp_path):
    with pytest.raises(RuntimeError, match="StopIteration"):
        warnings_of(tmp_path, [5.0])
    assert len(warnings_of(tmp_path, [5.5, 4.0, 0.6, 0.6], resume=True)) == 1
