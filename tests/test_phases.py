import math

import pytest
import torch

from fccl import phases
from fccl.model.losses import dpo_losses
from fccl.specs import PHASES


def test_every_phase_has_words_of_its_own():
    facts = [phases.of(phase) for phase in PHASES]
    for field in ("name", "title", "words", "noun", "unit", "short_unit", "start"):
        assert len({getattr(each, field) for each in facts}) == len(PHASES), field
    assert [phases.title(phase) for phase in PHASES] == [each.title for each in facts]


def test_a_phase_that_is_not_there_is_no_phase():
    with pytest.raises(KeyError, match="ipo"):
        phases.of("ipo")


def test_the_preference_phase_starts_at_the_loss_of_a_policy_that_is_its_reference():
    same = torch.tensor([-3.0])
    assert phases.of("va").start_loss == pytest.approx(float(dpo_losses(same, same, same, same, 0.1)), rel=1e-6)
    assert phases.of("va").start_loss == math.log(2)
    assert [phase for phase in PHASES if phases.of(phase).takes_reference] == ["va"]
