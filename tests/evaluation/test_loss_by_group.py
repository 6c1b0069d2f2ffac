"""The loss on groups of the server's examples: whose examples they are, and what they come to together."""

import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.adapters.adapter import Adapter
from fccl.evaluation.validation import MOST_GROUPS, Validator, VerificationLoss, groups_by_topic
from fccl.messages import FitTask
from fccl.specs import PreferenceSpec, TrainSpec

PREFERENCE = PreferenceSpec(beta=0.3)


def loss_of(model, sft, va):
    return VerificationLoss(Validator(model, sft, va, preference=PREFERENCE, batch_size=4), 0)


def count_of(model, split, phase, places):
    """Units of the examples at these places: response tokens, or pairs."""
    found = Validator(model, split.sft, split.va, preference=PREFERENCE, batch_size=4).examples(phase)
    return len(places) if phase == "va" else sum(found[place][0].response_length for place in places)


@pytest.mark.parametrize("phase", ["sft", "va"])
def test_losses_and_slopes_of_groups_are_theirs_alone_and_have_the_whole_as_their_mean(
    tiny_model, split, an_adapter, phase
):
    train = TrainSpec(epochs=1, learning_rate=0.1, batch_size=4, warmup=0, max_grad_norm=1, dpo_beta=0.3, threads=1)
    reference = an_adapter(9) if phase == "va" else None
    given_task = FitTask("run", 0, phase, an_adapter(1), reference, tiny_model.spec, train, 7)
    loss, point, ends = loss_of(tiny_model, split.sft, split.va), an_adapter(2), [an_adapter(3), an_adapter(4)]
    losses, slopes_of_groups = loss.by_group(given_task, point, iter(ends))
    whole, slopes = loss.slopes(given_task, point, ends)
    assert np.mean(losses) == pytest.approx(whole, rel=1e-6)
    assert np.mean(slopes_of_groups, axis=0) == pytest.approx(slopes, rel=1e-4, abs=1e-6)
    alone, none = loss.by_group(given_task, point)
    assert alone == pytest.approx(losses, rel=1e-6)
    assert none == ()
    held = {"sft": split.sft, "va": split.va}[phase]
    groups = groups_by_topic([one.topic for one in held], MOST_GROUPS)
    assert len(groups) == len(losses) > 1
    for places, said in zip(groups, losses, strict=True):
        kept = {"sft": list(split.sft), "va": list(split.va)} | {phase: [held[place] for place in places]}
        of_these = loss_of(tiny_model, kept["sft"], kept["va"])
        share = count_of(tiny_model, split, phase, places) / count_of(tiny_model, split, phase, range(len(held)))
        assert said == pytest.approx(len(groups) * share * of_these.loss(given_task, point), rel=1e-5)


def test_of_any_number_of_directions_few_are_in_memory(tiny_model, split, an_adapter):
    train = TrainSpec(epochs=1, learning_rate=0.1, batch_size=4, warmup=0, max_grad_norm=1, dpo_beta=0.3, threads=1)
    given_task, made = FitTask("run", 0, "sft", an_adapter(1), None, tiny_model.spec, train, 7), []

    def directions():
        for _ in range(9):
            adapter = Adapter({name: tensor.clone() for name, tensor in an_adapter(3).tensors.items()})
            made.append(weakref.ref(adapter))
            assert sum(each() is not None for each in made) <= 3  # the first, the last, and this one
            yield adapter

    _, slopes = loss_of(tiny_model, split.sft, split.va).by_group(given_task, an_adapter(2), directions())
    assert len(made) == 9
    assert all(len(set(row)) == 1 for row in slopes)


@given(st.lists(st.sampled_from(["", "a", "b", "c"]), min_size=1, max_size=30), st.integers(1, 9))
def test_groups_hold_every_example_once_and_no_topic_twice(topics, most):
    groups = groups_by_topic(topics, most)
    assert sorted(place for group in groups for place in group) == list(range(len(topics)))
    named = [{topics[place] for place in group} - {""} for group in groups]
    assert sum(map(len, named)) == len(set(topics) - {""})
    assert len(groups) == min(most, len(set(topics) - {""}) + topics.count(""))
