import torch
from hypothesis import given
from hypothesis import strategies as st

from fccl.adapters.adapter import Adapter
from fccl.compare.attacks import FORGED_LOSS, NOISE, PRIVACY_NOISE, SCALE, HostileLearner, attacked
from fccl.errors import TrainingError
from fccl.messages import FitTask
from fccl.testing.toy import MODEL, TRAIN, ToyLearner, adapter, shard

numbers = st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3)
START = adapter(1.0, -2.0, 3.0)


def task(start=START, seed=7, number=0):
    return FitTask("run", number, "sft", start, None, MODEL, TRAIN, seed)


def update(of=None, client=2):
    return ToyLearner().fit(of or task(), shard(client), lambda status: None)


def moved(attack, start, own):
    from dataclasses import replace

    honest = replace(update(task(adapter(*start))), adapter=adapter(*own))
    return attacked(attack, task(adapter(*start)), honest).adapter.load().tensors["w"].double()


@given(start=numbers, own=numbers)
def test_sign_flip_goes_as_far_the_other_way(start, own):
    x, u = torch.tensor(start, dtype=torch.float64), torch.tensor(own, dtype=torch.float64)
    assert torch.allclose(moved("sign_flip", start, own), x - (u - x), rtol=1e-6, atol=1e-5)


@given(start=numbers, own=numbers)
def test_scaling_goes_ten_times_as_far(start, own):
    x, u = torch.tensor(start, dtype=torch.float64), torch.tensor(own, dtype=torch.float64)
    assert torch.allclose(moved("scaling", start, own), x + SCALE * (u - x), rtol=1e-6, atol=1e-4)


@given(start=numbers, own=numbers)
def test_a_reversal_goes_three_times_as_far_the_other_way(start, own):
    x, u = torch.tensor(start, dtype=torch.float64), torch.tensor(own, dtype=torch.float64)
    assert torch.allclose(moved("reversal", start, own), x - 3 * (u - x), rtol=1e-6, atol=1e-4)


@given(start=numbers, own=numbers)
def test_a_sacrifice_is_absurd_whatever_its_client_trained(start, own):
    assert moved("sacrifice", start, own).tolist() == [1e4] * 3


def test_a_flipped_flip_is_the_honest_update():
    honest = update()
    twice = attacked("sign_flip", task(), attacked("sign_flip", task(), honest))
    assert torch.allclose(twice.adapter.load().tensors["w"], honest.adapter.load().tensors["w"])


def test_a_free_rider_returns_what_it_was_given_and_reports_as_others_do():
    honest = update()
    lazy = attacked("free_rider", task(), honest)
    assert lazy.adapter.load().sha256 == START.sha256
    assert lazy.contribution == honest.contribution


def test_the_noise_of_a_free_rider_has_its_norm_and_is_its_own():
    first, again, other = (
        attacked("free_rider_noise", task(), update(client=client)).adapter.load() for client in (2, 2, 1)
    )
    norm = float(START.tensors["w"].double().norm())
    assert abs(first.distance(START) / norm - NOISE) < 1e-3 * NOISE + 1e-6
    assert first.sha256 == again.sha256 != other.sha256
    assert first.sha256 != attacked("free_rider_noise", task(number=1), update(task(number=1))).adapter.load().sha256


@given(start=numbers, own=numbers)
def test_privacy_noise_is_as_long_as_the_update_and_the_client_s_own(start, own):
    from dataclasses import replace

    given_task = task(adapter(*start))
    honest, other = (replace(update(given_task, client), adapter=adapter(*own)) for client in (2, 1))
    sent, again, others = (attacked("dp_noise", given_task, one).adapter.load() for one in (honest, honest, other))
    length = honest.adapter.load().distance(given_task.adapter)
    assert abs(sent.distance(honest.adapter.load()) - PRIVACY_NOISE * length) <= 1e-6 * (100 + length)
    assert sent.sha256 == again.sha256
    assert sent.sha256 == others.sha256 if length == 0 else length < 1e-3 or sent.sha256 != others.sha256
    assert attacked("dp_noise", given_task, honest).contribution == honest.contribution


def test_a_hidden_flip_is_trained_on_from_the_flipped_update():
    """Of the toy's training t(x), u = t(x): what is sent is t(2x - u), with the honest report."""
    learner = HostileLearner(ToyLearner(), {2: "hidden_flip"})
    found, honest = learner.fit(task(), shard(2), lambda status: None), update()
    flipped = attacked("sign_flip", task(), honest).adapter.load()
    expected = update(task(flipped))
    assert found.adapter.load().sha256 == expected.adapter.load().sha256 != honest.adapter.load().sha256
    assert found.contribution == honest.contribution


def test_a_forger_lies_about_its_loss_and_nothing_else():
    honest = update()
    forged = attacked("loss_forger", task(), honest)
    assert forged.contribution.avg_loss == FORGED_LOSS < honest.contribution.avg_loss
    assert forged.contribution.num_samples == honest.contribution.num_samples
    assert forged.adapter.load().sha256 == honest.adapter.load().sha256


def test_only_those_who_attack_change_anything():
    learner = HostileLearner(ToyLearner(), {1: "sign_flip"})
    honest, hostile = (learner.fit(task(), shard(client), lambda status: None).adapter.load() for client in (0, 1))
    assert honest.sha256 == update(client=0).adapter.load().sha256
    assert hostile.sha256 == attacked("sign_flip", task(), update(client=1)).adapter.load().sha256


def test_an_attack_that_overflows_is_a_training_error():
    import pytest

    start = Adapter({"w": torch.tensor([-3e38, 0.0, 0.0])})
    from dataclasses import replace

    honest = replace(update(task(start)), adapter=Adapter({"w": torch.tensor([3e38, 0.0, 0.0])}))
    with pytest.raises(TrainingError, match="overflows"):
        attacked("scaling", task(start), honest)
