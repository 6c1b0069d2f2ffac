"""Personal adapters: Ditto's step is the paper's, its two ends are training alone and the global adapter, and a round
that is done again begins where it began.
"""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fccl.adapters.adapter import Adapter
from fccl.data.examples import SftExample
from fccl.data.shards import ClientShard
from fccl.errors import TrainingError
from fccl.evaluation.own_test import trained_alone
from fccl.messages import ClientUpdate, FitTask, OwnTestTask
from fccl.model.language_model import LossAndGradient
from fccl.model.loading import Models
from fccl.paths import StatePaths, run_digits
from fccl.specs import TrainSpec
from fccl.specs.personal import PersonalSpec
from fccl.testing.toy import MODEL, TRAIN, ToyLearner, adapter, shard
from fccl.training.drift import Drift
from fccl.training.engines import learner_for
from fccl.training.loop import train
from fccl.training.personal import PersonalAdapters, PersonalLearner, ditto_round, finetuned
from tests.examples import few

SPEC = TrainSpec(epochs=60, learning_rate=0.05, batch_size=1, warmup=0.0, max_grad_norm=1e9)


class Quadratic:
    """½ ‖v - a‖² for each of five examples, which is the client's loss F."""

    lengths = (1,) * 5

    def __init__(self, factor, target):
        self.factor, self.target = factor, target

    def count(self, indices):
        return len(indices)

    def at(self, indices):
        away = self.factor.detach() - self.target
        return LossAndGradient(float(0.5 * (away**2).sum()), {"w": away.clone()})


def drawn(seed, *names):
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(4, generator=draw) for _ in names]


def dittoed(pull, start, centre, target):
    factor = nn.Parameter(start.clone())
    spec = SPEC.model_copy(update={"prox_mu": pull})
    train({"w": factor}, Quadratic(factor, target), spec, seed=1, centre={"w": centre})
    return factor.detach()


@given(pull=st.floats(0.01, 100), seed=st.integers(0, 999))
@settings(max_examples=few(50))
def test_a_step_has_the_gradient_of_the_clients_loss_and_of_the_pull_to_the_global_adapter(pull, seed):
    """g(v) + λ (v - w), as in Li et al. 2021, algorithm 1: the gradient of F(v) + λ/2 ‖v - w‖², by autograd."""
    own, centre, target = drawn(seed, "v", "w", "a")
    gradient = Drift({"w": own}, prox_mu=pull, centre={"w": centre}).corrected({"w": own - target})["w"]
    v = own.clone().requires_grad_()
    objective = 0.5 * ((v - target) ** 2).sum() + pull / 2 * ((v - centre) ** 2).sum()
    torch.testing.assert_close(gradient, torch.autograd.grad(objective, v)[0])


@pytest.mark.parametrize("pull", [0.1, 1.0, 5.0])
def test_it_goes_to_the_minimum_of_both_whatever_it_starts_from(pull):
    """Of ½ ‖v - a‖² + λ/2 ‖v - w‖² that is (a + λ w) / (1 + λ)."""
    for seed in (1, 2):
        start, centre, target = drawn(seed, "v", "w", "a")
        wanted = (target + pull * centre) / (1 + pull)
        torch.testing.assert_close(dittoed(pull, start, centre, target), wanted, atol=0.02, rtol=0)


def test_a_large_pull_leaves_it_at_the_global_adapter_and_none_leaves_it_alone():
    start, centre, target = drawn(3, "v", "w", "a")
    near = dittoed(1e4, start, centre, target)
    assert float((near - centre).abs().max()) < 0.02 < float((target - centre).abs().max()) / 10
    alone = nn.Parameter(start.clone())
    train({"w": alone}, Quadratic(alone, target), SPEC, seed=1)
    assert torch.equal(dittoed(0.0, start, centre, target), alone.detach())


# --- a real model


@pytest.fixture
def work(tiny_model):
    """A learner, the model, and a client's examples."""
    examples = tuple(SftExample(f"Say {word} {n}", f"It is {word}.") for word in ("hot", "red") for n in range(4))
    return learner_for(Models.holding(tiny_model)), tiny_model, ClientShard(1, examples, ())


def own_request(model, train, start):
    return OwnTestTask("run", 1, "sft", start, start, None, model.spec, train, 7, (0.01, 0.01), 4)


def fit_task(model, number, base, train):
    return FitTask("run", number, "sft", base, None, model.spec, train, 7)


def spec_of(kind, pull=0.0):
    return TrainSpec(
        epochs=1,
        learning_rate=0.01,
        batch_size=4,
        warmup=0,
        max_grad_norm=1,
        threads=1,
        personal=PersonalSpec(kind=kind, pull=pull),
    )


def after_two_rounds(work, pull, tmp_path):
    """The client's own adapter after two rounds whose global adapters are its own updates."""
    learner, model, examples = work
    start = base = model.initial_adapter(3)
    own = PersonalLearner(learner, PersonalAdapters(StatePaths(tmp_path).personal))
    train = spec_of("ditto", pull)
    for number in (0, 1):
        update = own.fit(fit_task(model, number, base, train), examples, lambda status: None)
        assert update.adapter.load().sha256 == _update(work, number, base, train).sha256, "the federation's own bytes"
        base = update.adapter.load()
    return start, own.adapter_for(own_request(model, train, start), examples)


def _update(work, number, base, train):
    learner, model, examples = work
    return learner.fit(fit_task(model, number, base, train), examples, lambda status: None).adapter.load()


def test_without_a_pull_it_has_the_bytes_of_the_client_s_training_alone(work, tmp_path):
    start, own = after_two_rounds(work, 0.0, tmp_path)
    learner, model, examples = work
    alone = trained_alone(learner, own_request(model, spec_of("ditto"), start), examples)
    assert own.sha256 == alone.sha256


def test_the_harder_the_pull_the_nearer_it_stays_to_the_round_s_global_adapter(work, tmp_path):
    _, model, examples = work
    learner, base, start = work[0], model.initial_adapter(3), model.initial_adapter(3)
    away = Adapter({name: tensor + 0.05 for name, tensor in base.tensors.items()})
    task = fit_task(model, 0, away, spec_of("ditto"))
    distances = []
    for pull in (0.0, 1.0, 1e4):
        pulled = replace(task, train=spec_of("ditto", pull))
        distances.append(ditto_round(learner, pulled, examples, start).distance(away))
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < start.distance(away)


def test_a_finetuned_one_is_the_global_adapter_after_one_round_more(work, tmp_path):
    learner, model, examples = work
    base, train = model.initial_adapter(3), spec_of("finetune")
    request = own_request(model, train, base)
    own = PersonalLearner(learner, PersonalAdapters(StatePaths(tmp_path).personal))
    bare = train.model_copy(update={"personal": None})
    expected = learner.fit(fit_task(model, 2, base, bare), examples, lambda status: None).adapter.load()
    assert own.adapter_for(request, examples).sha256 == finetuned(learner, request, examples).sha256 == expected.sha256
    assert own.kept.newest(request, 1, 2).sha256 == expected.sha256


# --- what a client keeps


DITTO = TRAIN.model_copy(update={"personal": PersonalSpec(kind="ditto", pull=0.5)})


def task(number, run="run"):
    return FitTask(run, number, "sft", adapter(1.0, 2.0, float(number)), None, MODEL, DITTO, 7)


def own_learner(tmp_path, lines=None, learner=None):
    tell = (lambda line: None) if lines is None else lines.append
    return PersonalLearner(learner or ToyLearner(), PersonalAdapters(StatePaths(tmp_path).personal), tell)


def files(tmp_path, client=1):
    return {path.name: path.read_bytes() for path in sorted(StatePaths(tmp_path).personal(client).root.iterdir())}


def fit(own, number, client=1, **more):
    return own.fit(task(number, **more), shard(client), lambda status: None)


def test_a_round_that_is_done_again_in_another_process_gives_the_same_bytes(tmp_path):
    for number in (0, 1, 2):
        fit(own_learner(tmp_path), number)
        once = files(tmp_path)
        fit(own_learner(tmp_path), number)
        assert files(tmp_path) == once
    digits = run_digits("run")
    assert sorted(once) == [f"personal_{digits}_sft.json", *(f"personal_{digits}_sft_{n}.safetensors" for n in (1, 2))]


def test_the_adapters_of_earlier_runs_stay(tmp_path):
    fit(own_learner(tmp_path), 0, run="earlier")
    first = files(tmp_path)
    for number in (0, 1, 2):
        fit(own_learner(tmp_path), number)
    assert first.items() <= files(tmp_path).items()


def test_what_was_deleted_or_damaged_is_a_line_and_the_round_s_global_adapter(tmp_path):
    lines = []
    fit(own_learner(tmp_path, lines), 0)
    assert lines == ["client 1: its personal adapter begins with the global one of round 1"]
    newest = StatePaths(tmp_path).personal(1).adapter(run_digits("run"), "sft", 0)
    newest.write_bytes(b"no adapter")
    fit(own_learner(tmp_path, lines), 1)
    assert "is not used" in lines[1]
    assert lines[2] == "client 1: its personal adapter begins with the global one of round 2"


class Broken(ToyLearner):
    """Diverges in a client's own steps, which have a centre."""

    def fit(self, task, shard, on_status):
        if task.centre is not None:
            raise TrainingError("the loss is not finite")
        return super().fit(task, shard, on_status)


def test_one_that_diverges_spoils_no_update(tmp_path):
    lines = []
    update = fit(own_learner(tmp_path, lines, Broken()), 0)
    assert update.adapter.load().sha256 == fit(own_learner(tmp_path / "other"), 0).adapter.load().sha256
    assert lines[-1] == "client 1: its personal adapter stays as it was: the loss is not finite"
    assert not StatePaths(tmp_path).personal(1).root.exists()


def test_clients_that_train_together_have_the_same_own_adapters_as_one_after_another(tmp_path):
    answers = own_learner(tmp_path / "one").fit_together(task(0), [0, 1], shard, lambda status: None)
    assert all(isinstance(answer, ClientUpdate) for answer in answers)
    for client in (0, 1):
        fit(own_learner(tmp_path / "two"), 0, client)
        assert files(tmp_path / "one", client) == files(tmp_path / "two", client)


def test_the_folder_is_for_its_owner_alone(tmp_path):
    fit(own_learner(tmp_path), 0)
    assert StatePaths(tmp_path).personal(1).root.stat().st_mode & 0o777 == 0o700


def test_a_task_that_asks_for_none_makes_none(tmp_path):
    own = own_learner(tmp_path)
    own.fit(replace(task(0), train=TRAIN), shard(1), lambda status: None)
    assert list(tmp_path.iterdir()) == []
