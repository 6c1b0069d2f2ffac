import pytest
import torch

from fccl import phases
from fccl.model.preference_losses import PREFERENCE_LOSSES, Pairs, losses_of
from fccl.specs import PHASES, PreferenceSpec


def test_every_phase_has_words_of_its_own():
    facts = [phases.of(phase) for phase in PHASES]
    for field in ("name", "title", "words", "noun", "unit", "short_unit", "start"):
        assert len({getattr(each, field) for each in facts}) == len(PHASES), field
    assert [phases.title(phase) for phase in PHASES] == [each.title for each in facts]


def test_a_phase_that_is_not_there_is_no_phase():
    with pytest.raises(KeyError, match="ipo"):
        phases.of("ipo")


@pytest.mark.parametrize("kind", sorted(PREFERENCE_LOSSES))
@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_the_preference_phase_starts_at_the_loss_of_a_policy_that_is_its_reference(kind, beta):
    spec, same = PreferenceSpec(loss=kind, beta=beta, label_smoothing=0.3), torch.tensor([[-3.0, -8.0]]).double()
    expected = float(losses_of(Pairs(same, same, torch.tensor([[2, 9]])), spec)) if spec.takes_reference else None
    assert phases.start_loss("va", spec) == pytest.approx(expected)
    assert phases.start_loss("sft", spec) is None


@pytest.mark.parametrize("kind", sorted(PREFERENCE_LOSSES))
def test_only_a_preference_phase_whose_loss_takes_a_reference_has_one(kind):
    spec = PreferenceSpec(loss=kind)
    assert [phase for phase in PHASES if phases.takes_reference(phase, spec)] == ["va"] * spec.takes_reference
