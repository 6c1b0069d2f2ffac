"""Several clients trained in one batch, against `fccl.training.loop.train` with each of them alone."""

from dataclasses import replace

import pytest
import torch

from fccl.data.examples import PreferencePair, SftExample
from fccl.errors import TrainingError
from fccl.model.encoding import encode
from fccl.model.gpt2_model import load_gpt2
from fccl.model.objectives import objective_for
from fccl.specs import ModelSpec, TrainSpec
from fccl.training.clients_training import ClientsTraining, ClientWork
from fccl.training.loop import train
from fccl.training.objective import ObjectiveUnderModel
from fccl.training.recorded import eager

SPEC = TrainSpec(
    epochs=2,
    learning_rate=3e-3,
    batch_size=3,
    warmup=0.1,
    max_grad_norm=0.7,
    schedule="cosine",
    weight_decay=0.01,
    dpo_beta=0.1,
)
SIZES = (4, 10, 7)  # examples: so many as 4, 8 and 6 steps
EXACT, ROUNDED = (torch.float64, 1e-9), (torch.float32, 1e-3)


def model_of(path, dtype=torch.float64, **changes):
    """The tiny model in this type, its B not zero."""
    lora = {"lora_r": 4, "lora_alpha": 8.0, "lora_targets": "all-linear", "max_length": 128} | changes
    model = load_gpt2(ModelSpec(name=str(path), engine="gpt2", **lora))
    if dtype == torch.float64:
        model.model.double()
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for factor in model.factors.values():
            factor.copy_(0.1 * torch.randn(factor.shape, generator=draw))
    return model


def objectives(model, phase, sizes=SIZES):
    """A loss for each client, over examples of its own."""
    found = []
    for client, size in enumerate(sizes):
        answers = [f"It is {client} " + "and so " * (n + 1) + "on." for n in range(size)]
        questions = [f"What is {n + client}?" for n in range(size)]
        rows = encode(
            model.tokenizer,
            phase,
            [SftExample(*each) for each in zip(questions, answers, strict=True)]
            if phase == "sft"
            else [PreferencePair(*each, "Go away. " * (client + 1)) for each in zip(questions, answers, strict=True)],
            128,
        )
        reference = torch.linspace(-90, -70, 2 * size, dtype=torch.float64).view(-1, 2) if phase == "va" else None
        found.append(objective_for(phase, rows, reference, SPEC.preference))
    return found


def correction(model, client):
    return {name: torch.full_like(factor, 0.01 * (client + 1)) for name, factor in model.factors.items()}


def put(model, values):
    with torch.no_grad():
        for name, factor in model.factors.items():
            factor.copy_(values[name])


def copy(values):
    return {name: part.detach().clone() for name, part in values.items()}


def alone(model, losses, spec, corrected):
    """Each client by itself from the factors that the model has, which it has again afterwards."""
    start, found = copy(model.factors), []
    for client, objective in enumerate(losses):
        put(model, start)
        moving = {name: factor for name, factor in model.factors.items() if not (spec.freeze_a and ".lora_A." in name)}
        told = correction(model, client) if corrected else None
        result = train(moving, ObjectiveUnderModel(model, objective, moving), spec, client, correction=told)
        found.append((result, copy(model.factors)))
    put(model, start)
    return found


def works(model, losses, corrected=False):
    return [
        ClientWork(objective, seed=client, correction=correction(model, client) if corrected else None)
        for client, objective in enumerate(losses)
    ]


def apart(found, expected, start):
    """How far two ends of a training are from each other, over how far the training went."""
    between, went = (
        sum(float((one[name] - other[name]).square().sum()) for name in start) ** 0.5
        for one, other in ((found, expected), (expected, start))
    )
    return between / went


def require_alike(model, phase, limit, spec=SPEC, corrected=False, recorder=None, places=3):
    losses, start = objectives(model, phase), copy(model.factors)
    expected = alone(model, losses, spec, corrected)
    training = ClientsTraining(model, places, spec, losses[0], corrected, recorder)
    results = training.train(works(model, losses, corrected))
    for client, (result, (single, learned)) in enumerate(zip(results, expected, strict=True)):
        mine = training.factors.of_client(training.factors.values, client)
        assert apart(mine, learned, start) < limit
        assert (result.steps, result.tokens) == (single.steps, single.tokens)
        assert result.avg_loss == pytest.approx(single.avg_loss, rel=limit)
        assert result.first_loss == pytest.approx(single.first_loss, rel=limit)
        assert (result.control is None) == (single.control is None)
        for name, control in (single.control or {}).items():
            torch.testing.assert_close(result.control[name], control, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("recorder", [None, eager])
@pytest.mark.parametrize(("dtype", "limit"), [EXACT, ROUNDED])
@pytest.mark.parametrize("phase", ["sft", "va"])
def test_clients_of_unlike_size_learn_together_what_each_learns_alone(tiny_model_path, phase, dtype, limit, recorder):
    require_alike(model_of(tiny_model_path, dtype), phase, limit, recorder=recorder)


@pytest.mark.parametrize(
    ("changes", "corrected"),
    [({"prox_mu": 0.5}, False), ({}, True), ({"prox_mu": 0.5, "freeze_a": True}, True)],
    ids=["FedProx", "SCAFFOLD", "both, with A fixed"],
)
def test_corrections_are_each_clients_own(tiny_model_path, changes, corrected):
    require_alike(model_of(tiny_model_path), "sft", 1e-9, SPEC.model_copy(update=changes), corrected)


def test_places_without_a_client_change_nothing(tiny_model_path):
    require_alike(model_of(tiny_model_path), "sft", 1e-9, places=5)


def test_lora_on_the_top_layer_alone_takes_kept_activations(tiny_model_path):
    model = model_of(tiny_model_path, lora_layers=1)
    assert model.written_out.frozen
    require_alike(model, "sft", 1e-9, recorder=eager)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_base_of_fewer_bits_is_the_same_base(tiny_model_path, precision):
    """int8 sums whole numbers exactly; bfloat16 is rounded where float noise may decide."""
    model = model_of(tiny_model_path, torch.float32, base_precision=precision)
    require_alike(model, "sft", 0.05)


def test_the_same_clients_give_the_same_bytes_in_a_training_that_was_used_before(tiny_model_path):
    model = model_of(tiny_model_path, torch.float32)
    losses = objectives(model, "sft")
    used, fresh = (ClientsTraining(model, 3, SPEC, losses[0], recorder=eager) for _ in range(2))
    used.train(works(model, losses[::-1]))
    for training in (used, fresh):
        training.train(works(model, losses))
    assert all(
        torch.equal(part, fresh.learned(client)[name])
        for client in range(3)
        for name, part in used.learned(client).items()
    )


def test_a_client_that_diverges_drops_out_and_the_others_go_on(tiny_model_path):
    model = model_of(tiny_model_path)
    losses = objectives(model, "sft")
    expected = alone(model, losses, SPEC, corrected=True)
    training = ClientsTraining(model, 3, SPEC, losses[0], corrected=True)
    given = works(model, losses, corrected=True)
    given[1] = replace(given[1], correction={name: part * 1e200 for name, part in given[1].correction.items()})
    results = training.train(given)
    assert isinstance(results[1], TrainingError)
    assert "not finite at step 1" in str(results[1])
    for client in (0, 2):
        mine = training.factors.of_client(training.factors.values, client)
        assert apart(mine, expected[client][1], copy(model.factors)) < 1e-9
        assert results[client].control is not None


def test_infinities_of_one_client_do_not_end_another(tiny_model_path):
    """Its activations are not finite, and 0 · ∞ stands in the sums that are the others' gradients."""
    model = model_of(tiny_model_path)
    losses = objectives(model, "sft")
    expected = alone(model, losses, SPEC, corrected=False)
    training = ClientsTraining(model, 3, SPEC, losses[0])
    given, heard = works(model, losses), []

    def spoil(report):
        heard.append(report.step)
        if report.step == 2:
            for part in training.factors.of_client(training.factors.values, 2).values():
                part.fill_(1e200)

    given[2] = replace(given[2], on_step=spoil)
    results = training.train(given)
    assert heard == [1, 2]
    assert "not finite at step 3" in str(results[2])
    for client in (0, 1):
        mine = training.factors.of_client(training.factors.values, client)
        assert apart(mine, expected[client][1], copy(model.factors)) < 1e-9
