import dataclasses
import math

import pytest
import torch

from fccl.adapters.adapter import Adapter
from fccl.adapters.ranks import of_rank, rank_of
from fccl.data.examples import PreferencePair, SftExample
from fccl.data.shards import ClientShard
from fccl.errors import AdapterError, TrainingError, UpdateRejected
from fccl.messages import FitTask, OwnCorrection
from fccl.model.activations import Activations
from fccl.model.encoding import encode, encode_pairs, encode_sft
from fccl.model.language_model import GPT2
from fccl.model.loading import Models, load_model
from fccl.model.objectives import objective_for
from fccl.specs import TrainSpec
from fccl.storage.cache import Cache
from fccl.training import references
from fccl.training.learner import GenericLearner
from fccl.training.objective import ObjectiveUnderModel, reference_log_probs

SHARD = ClientShard(
    0,
    tuple(SftExample(f"What is {n}?", f"It is {n}.") for n in range(6)),
    tuple(PreferencePair(f"What is {n}?", f"It is {n}.", "Go away.") for n in range(6)),
)
TRAIN = TrainSpec(epochs=3, learning_rate=5e-3, batch_size=2, warmup=0.1, max_grad_norm=1.0)


@pytest.fixture
def learner(tiny_model):
    return GenericLearner(Models.holding(tiny_model))


class Only(Models):
    """Models of which none but one may be asked for."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def of(self, spec):
        assert spec == self.model.spec
        return self.model


def likelihood(model):
    """The loss of the shard's instructions under the adapter that is loaded."""
    rows = encode(model.tokenizer, "sft", SHARD.sft, model.spec.max_length)
    return ObjectiveUnderModel(model, objective_for("sft", rows))


def task(model, phase="sft", train=TRAIN, **changes):
    start = model.initial_adapter(1)
    fields = {
        "run_id": "r",
        "round": 0,
        "phase": phase,
        "adapter": start,
        "reference": start if phase == "va" else None,
    }
    return FitTask(**fields | changes, model=model.spec, train=train, seed=5)


def test_sft_lowers_the_loss_and_reports_it(learner, tiny_model):
    statuses = []
    update = learner.fit(task(tiny_model), SHARD, statuses.append)
    assert update.contribution.avg_loss < update.report.first_loss
    assert update.contribution.num_samples == 6
    assert update.report.steps == 9
    rows = encode_sft(tiny_model.tokenizer, SHARD.sft, tiny_model.spec.max_length)
    assert update.report.tokens == 3 * sum(len(row.ids) for row in rows)
    assert update.report.tokens_per_second > 0
    assert [status.state for status in statuses] == ["training"] * 10 + ["done"]
    assert statuses[-1].step == statuses[-1].steps == 9
    update.require_answers(task(tiny_model))


def corrected(model, correction, **changes):
    return dataclasses.replace(task(model, **changes), corrections=OwnCorrection(correction))


def test_a_correction_of_zero_changes_nothing_and_the_control_is_the_mean_gradient(learner, tiny_model):
    """With one step of one batch of all examples the mean gradient is that of the shard's loss at the start."""
    once = TRAIN.model_copy(update={"epochs": 1, "batch_size": 6})
    start = tiny_model.initial_adapter(1)
    plain = learner.fit(task(tiny_model, train=once), SHARD, lambda status: None)
    update = learner.fit(
        corrected(
            tiny_model, Adapter({name: torch.zeros_like(tensor) for name, tensor in start.tensors.items()}), train=once
        ),
        SHARD,
        lambda status: None,
    )
    assert update.adapter.sha256 == plain.adapter.sha256
    assert plain.control is None
    tiny_model.load(start)
    for name, gradient in likelihood(tiny_model).at(range(6)).gradient.items():
        torch.testing.assert_close(update.control.tensors[name], gradient, rtol=1e-4, atol=1e-7)


def test_a_correction_is_added_to_the_gradient(learner, tiny_model):
    """One that is the gradient's opposite leaves nothing to descend."""
    once, start = TRAIN.model_copy(update={"epochs": 1, "batch_size": 6}), tiny_model.initial_adapter(1)
    nothing = Adapter({name: torch.zeros_like(tensor) for name, tensor in start.tensors.items()})
    gradient = learner.fit(corrected(tiny_model, nothing, train=once), SHARD, lambda status: None).control
    opposite = Adapter({name: -tensor for name, tensor in gradient.tensors.items()})
    assert (
        learner.fit(corrected(tiny_model, opposite, train=once), SHARD, lambda status: None).adapter.distance(start)
        < 1e-6
    )


@pytest.mark.parametrize("phase", ["sft", "va"])
def test_a_correction_moves_the_update_and_its_control_answers(learner, tiny_model, phase):
    plain = learner.fit(task(tiny_model, phase), SHARD, lambda status: None)
    wanted = corrected(tiny_model, tiny_model.initial_adapter(9), phase=phase)
    update = learner.fit(wanted, SHARD, lambda status: None)
    assert update.adapter.sha256 != plain.adapter.sha256
    update.require_answers(wanted)
    with pytest.raises(UpdateRejected, match="without a control variate"):
        plain.require_answers(wanted)
    with pytest.raises(UpdateRejected, match="with a control variate"):
        update.require_answers(task(tiny_model, phase))


def test_frozen_factors_have_no_control(learner, tiny_model):
    frozen = TRAIN.model_copy(update={"freeze_a": True})
    update = learner.fit(corrected(tiny_model, tiny_model.initial_adapter(9), train=frozen), SHARD, lambda status: None)
    for name, tensor in update.control.tensors.items():
        assert bool(tensor.any()) == (".lora_B." in name)


def test_dpo_starts_at_log_two_against_its_own_reference(learner, tiny_model):
    update = learner.fit(task(tiny_model, "va"), SHARD, lambda status: None)
    assert update.report.first_loss == pytest.approx(math.log(2), rel=1e-5)
    assert update.contribution.avg_loss < math.log(2)


def test_dpo_trains_the_tasks_adapter_against_the_tasks_reference(learner, tiny_model):
    """With a learning rate that moves nothing: the loss is that of the adapter against whichever reference the task
    has, and the adapter stays.
    """
    draw = torch.Generator().manual_seed(3)
    start, *references = (
        Adapter({name: 0.2 * torch.randn(p.shape, generator=draw) for name, p in tiny_model.factors.items()})
        for _ in range(3)
    )
    train = TRAIN.model_copy(update={"epochs": 1, "batch_size": 6, "learning_rate": 1e-12, "dpo_beta": 0.7})
    pairs, losses = encode_pairs(tiny_model.tokenizer, SHARD.va, tiny_model.spec.max_length), []
    for reference in references:
        update = learner.fit(
            task(tiny_model, "va", train, adapter=start, reference=reference), SHARD, lambda status: None
        )
        known = reference_log_probs(tiny_model, reference, pairs, 6)
        tiny_model.load(start)
        losses.append(update.report.first_loss)
        loss = ObjectiveUnderModel(tiny_model, objective_for("va", pairs, known, train.preference))
        assert losses[-1] == pytest.approx(loss.at(range(6)).loss, rel=1e-5)
        assert update.adapter.distance(start) < 1e-6
    assert abs(losses[0] - losses[1]) > 1e-3


@pytest.mark.parametrize("phase", ["sft", "va"])
def test_every_client_and_every_round_has_an_order_of_its_own(learner, tiny_model, phase):
    asked = [(0, 0), (1, 0), (0, 1)]
    found = [
        learner.fit(
            task(tiny_model, phase, round=number), dataclasses.replace(SHARD, client_id=client), lambda status: None
        )
        for client, number in asked
    ]
    assert len({update.adapter.sha256 for update in found}) == 3


@pytest.mark.parametrize("phase", ["sft", "va"])
def test_it_trains_on_the_tasks_number_of_threads(learner, tiny_model, phase, monkeypatch):
    seen, step = set(), type(tiny_model).loss_and_gradient

    def watched(*arguments):
        seen.add(torch.get_num_threads())
        return step(*arguments)

    monkeypatch.setattr(type(tiny_model), "loss_and_gradient", watched)
    before = torch.get_num_threads()
    for threads in (1, 2):
        seen.clear()
        learner.fit(task(tiny_model, phase, TRAIN.model_copy(update={"threads": threads})), SHARD, lambda status: None)
        assert seen == {threads}
        assert torch.get_num_threads() == before


@pytest.mark.parametrize("phase", ["sft", "va"])
def test_the_same_task_gives_the_same_bytes_whatever_was_done_before(learner, tiny_model, phase):
    first = learner.fit(task(tiny_model, phase), SHARD, lambda status: None)
    learner.fit(task(tiny_model, "sft", round=3), SHARD, lambda status: None)
    torch.rand(7)
    again = learner.fit(task(tiny_model, phase), SHARD, lambda status: None)
    fresh = GenericLearner(Models.holding(tiny_model)).fit(task(tiny_model, phase), SHARD, lambda status: None)
    assert first.adapter.to_bytes() == again.adapter.to_bytes() == fresh.adapter.to_bytes()


def test_the_base_model_is_never_touched(learner, tiny_model):
    before = {name: tensor.clone() for name, tensor in tiny_model.base.state_dict().items() if "lora" not in name}
    learner.fit(task(tiny_model), SHARD, lambda status: None)
    assert all(torch.equal(tensor, tiny_model.base.state_dict()[name]) for name, tensor in before.items())


def test_reference_log_probs_are_computed_once_for_all_rounds(tiny_model, monkeypatch):
    calls = []
    monkeypatch.setattr(references, "reference_log_probs", lambda *args: calls.append(1) or reference_log_probs(*args))
    learner = GenericLearner(Models.holding(tiny_model))
    for round_number in (2, 3):
        learner.fit(task(tiny_model, "va", round=round_number), SHARD, lambda status: None)
    assert len(calls) == 1
    learner.fit(task(tiny_model, "va"), ClientShard(1, SHARD.sft, SHARD.va[1:]), lambda status: None)
    assert len(calls) == 2


def test_what_was_cut_is_counted(learner, tiny_model):
    words = "word " * 300
    pairs = (PreferencePair(words, "yes", "no"), PreferencePair("a", "yes", words), PreferencePair("a", "yes", "no"))
    long = ClientShard(0, (SftExample(words, "yes"), SftExample("a", "b")), pairs)
    assert learner.fit(task(tiny_model), long, lambda status: None).report.truncated == 1
    assert learner.fit(task(tiny_model, "va"), long, lambda status: None).report.truncated == 2


def test_a_diverging_client_is_an_error(learner, tiny_model):
    wild = TRAIN.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(TrainingError):
        learner.fit(task(tiny_model, train=wild), SHARD, lambda status: None)


@pytest.mark.parametrize("phase", ["sft", "va"])
def test_with_freeze_a_only_b_moves_and_the_next_task_trains_both_again(learner, tiny_model, phase):
    start = tiny_model.initial_adapter(1)
    update = learner.fit(
        task(tiny_model, phase, TRAIN.model_copy(update={"freeze_a": True})), SHARD, lambda status: None
    )
    for name, tensor in update.adapter.tensors.items():
        assert torch.equal(tensor, start.tensors[name]) == ("lora_A" in name), name
    assert all(factor.requires_grad for factor in tiny_model.factors.values())
    both = learner.fit(task(tiny_model, phase), SHARD, lambda status: None)
    fresh = GenericLearner(Models.holding(tiny_model)).fit(task(tiny_model, phase), SHARD, lambda status: None)
    assert both.adapter.to_bytes() == fresh.adapter.to_bytes()
    assert not any(torch.equal(tensor, start.tensors[name]) for name, tensor in both.adapter.tensors.items())


@pytest.mark.parametrize("phase", ["sft", "va"])
def test_the_proximal_term_keeps_the_update_near_the_global_adapter(learner, tiny_model, phase):
    start, distances = tiny_model.initial_adapter(1), []
    for mu in (0.0, 0.1, 10.0):
        update = learner.fit(
            task(tiny_model, phase, TRAIN.model_copy(update={"prox_mu": mu})), SHARD, lambda status: None
        )
        distances.append(update.adapter.distance(start))
    assert distances[0] > distances[1] > distances[2]


LOWER = TRAIN.model_copy(update={"lower_ranks": True, "epochs": 1})


def under(model, rank, phase="sft", train=LOWER):
    """A task of a wider adapter than the model's LoRA; in VA rounds its reference has another rank still."""
    draw = torch.Generator().manual_seed(1)
    shapes = [of_rank(model.adapter().form, wide).shapes for wide in (rank, rank + 2)]
    start, reference = (
        Adapter({name: 0.1 * torch.randn(shape, generator=draw) for name, shape in found.items()}) for found in shapes
    )
    return task(model, phase, train, adapter=start, reference=reference if phase == "va" else None)


@pytest.mark.parametrize("phase", ["sft", "va"])
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_a_client_of_lower_rank_trains_the_first_directions_of_the_same_model(tiny_model, phase, rank):
    """Its first loss is that of a client of full rank, to float noise: both start from the global model, whatever part
    of it they train.
    """
    asked, models = under(tiny_model, 7, phase), Models.holding(tiny_model)
    learner = GenericLearner(models, (4, rank))
    full, low = (
        learner.fit(asked, dataclasses.replace(SHARD, client_id=number), lambda status: None) for number in (0, 1)
    )
    assert [rank_of(update.adapter.form) for update in (full, low)] == [4, rank]
    for update in (full, low):
        update.require_answers(asked)
    narrow = models.of(tiny_model.spec.of_rank(rank))
    assert rank_of(narrow.form) == rank
    for model in (narrow, tiny_model):
        model.load(asked.adapter)
    assert likelihood(narrow).at(range(6)).loss == pytest.approx(likelihood(tiny_model).at(range(6)).loss, rel=1e-5)
    assert all(
        not torch.equal(tensor, asked.adapter.tensors[name][: len(tensor), : tensor.shape[1]])
        for name, tensor in low.adapter.tensors.items()
    )


@pytest.mark.parametrize(
    ("rank", "train", "message"),
    [
        (5, LOWER, "rank 5 is more than LORA_R=4"),
        (2, TRAIN, "rank 2 is less than LORA_R=4, which only LORA_AGGREGATION=svd and exact allow"),
    ],
)
def test_a_rank_that_the_federation_does_not_allow_is_an_error(tiny_model, rank, train, message):
    learner = GenericLearner(Only(tiny_model), (rank,))
    with pytest.raises(AdapterError, match=message):
        learner.fit(task(tiny_model, train=train), SHARD, lambda status: None)


def test_rounds_with_kept_activations_have_the_bytes_of_a_process_started_anew_for_each(tiny_model, tmp_path):
    """LoRA on the upper layer: its input is in memory, on the disk, or made again."""
    spec = tiny_model.spec.model_copy(update={"lora_layers": 1})
    start = load_model(spec).initial_adapter(1)

    def rounds(models_of_round):
        adapter = start
        for number, phase in enumerate(["sft", "va"]):
            reference = start if phase == "va" else None
            asked = FitTask("r", number, phase, adapter, reference, spec, TRAIN, seed=5)
            adapter = GenericLearner(models_of_round()).fit(asked, SHARD, lambda status: None).adapter
        return adapter.sha256

    one, cache = Models(), Cache(tmp_path / "cache", 10_000_000)
    in_one_process = rounds(lambda: one)
    assert in_one_process == rounds(Models)
    assert in_one_process == rounds(lambda: Models(activations=Activations(cache, most_bytes=0)))
    assert cache.folder.exists() == (spec.engine == GPT2)
