"""A model whose middle matrices are trained: gradients by the chain rule in torch, logits of PEFT after export."""

from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from fccl.adapters.adapter import Adapter
from fccl.adapters.middle import folded, joined, middles
from fccl.data.examples import PreferencePair, SftExample
from fccl.errors import AdapterError
from fccl.model.encoding import encode
from fccl.model.language_model import GENERIC, GPT2
from fccl.model.loading import Models
from fccl.model.middle_model import MiddleModel
from fccl.model.objectives import objective_for
from fccl.specs import ModelSpec

RANK = 5
EXAMPLES = [SftExample(f"What is {n}?", "It is " + "and so " * n + "on.") for n in range(4)]
PAIRS = [PreferencePair(f"What is {n}?", "It is so.", "Go away. " * (4 - n)) for n in range(4)]


def spec_of(path, **changes):
    usual = {"name": str(path), "lora_r": RANK, "lora_alpha": 10.0, "lora_targets": "all-linear", "max_length": 128}
    return ModelSpec(**usual | {"middle": True} | changes)


@pytest.fixture(scope="module")
def engines(tiny_model_path):
    models = Models()
    return {engine: models.of(spec_of(tiny_model_path, engine=engine)) for engine in (GENERIC, GPT2)}


def random_adapter(model, seed=1):
    draw = torch.Generator().manual_seed(seed)
    shapes = model.whole_form.shapes.items()
    return Adapter({name: 0.3 * torch.randn(shape, generator=draw) for name, shape in shapes})


def by_torch(model, adapter, loss_of):
    """The gradient with respect to R, by torch's own graph through B R in the place of the engine's B."""
    plain = replace(model.plain, padded=True) if model.engine == GENERIC else model.plain
    model.load(adapter)
    squares = {names.r: adapter.tensors[names.r].clone().requires_grad_() for names in middles(model.form)}
    found = plain.loss_and_gradient(*loss_of)
    total = sum(
        ((adapter.tensors[names.b] @ squares[names.r]) * found.gradient[names.b]).sum() for names in middles(model.form)
    )
    return dict(zip(squares, torch.autograd.grad(total, list(squares.values())), strict=True))


@pytest.mark.parametrize("phase", ["sft", "va"])
@pytest.mark.parametrize("engine", [GENERIC, GPT2])
def test_the_gradient_is_that_of_the_product_by_the_chain_rule(engines, engine, phase):
    model = engines[engine]
    rows = encode(model.tokenizer, phase, EXAMPLES if phase == "sft" else PAIRS, 128)
    objective = objective_for(phase, rows, torch.zeros(len(rows), 2) if phase == "va" else None)
    loss = rows, lambda log_probs: objective.total(range(len(rows)), log_probs)
    expected = by_torch(model, random_adapter(model), loss)
    found = model.loss_and_gradient(*loss)
    assert found.gradient.keys() == expected.keys()
    for name, part in expected.items():
        torch.testing.assert_close(found.gradient[name], part, rtol=1e-4, atol=1e-4)


def test_a_step_along_the_gradient_changes_the_loss_by_as_much_as_it_says(engines):
    """A central difference: the loss along one direction of all R."""
    model, at = engines[GPT2], 1e-3
    adapter = random_adapter(model)
    rows = encode(model.tokenizer, "sft", EXAMPLES, 128)
    objective = objective_for("sft", rows)
    loss = rows, lambda log_probs: objective.total(range(len(rows)), log_probs) / 10
    model.load(adapter)
    gradient = model.loss_and_gradient(*loss).gradient
    size = sum(float(part.square().sum()) for part in gradient.values()) ** 0.5
    losses = []
    for step in (at, -at):
        for name, matrix in model.factors.items():
            matrix.data.copy_(adapter.tensors[name] + step * gradient[name] / size)
        losses.append(model.loss_and_gradient(*loss).loss)
    assert (losses[0] - losses[1]) / (2 * at) == pytest.approx(size, rel=2e-2)


def test_both_engines_say_the_same_and_an_adapter_leaves_no_trace(engines):
    rows = encode(engines[GPT2].tokenizer, "va", PAIRS, 128)
    found = []
    for model in engines.values():
        first = random_adapter(model)
        model.load(first)
        said = model.response_log_probs(rows)
        model.load(random_adapter(model, 2))
        model.load(first)
        assert torch.equal(model.response_log_probs(rows), said)
        found.append(said.double())
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)


def test_its_own_adapter_is_the_middle_matrices_and_the_fresh_one_is_the_base_model(engines):
    model = engines[GPT2]
    adapter = random_adapter(model)
    model.load(adapter)
    assert model.adapter().form == model.form
    assert joined(model.adapter(), adapter).sha256 == adapter.sha256
    rows = encode(model.tokenizer, "sft", EXAMPLES, 128)
    model.load(model.initial_adapter(3))
    base = model.response_log_probs(rows)
    model.plain.load(model.plain.initial_adapter(8))
    assert torch.equal(model.plain.response_log_probs(rows), base)
    with pytest.raises(AdapterError, match="different tensors"):
        model.load(folded(adapter))


@pytest.mark.parametrize("engine", [GENERIC, GPT2])
def test_peft_and_a_plain_model_say_the_same_after_export(engines, engine, tiny_model_path, tmp_path):
    model = engines[engine]
    adapter = random_adapter(model)
    model.write_adapter(adapter, tmp_path / "peft")
    model.write_merged(adapter, tmp_path / "merged")
    ids = torch.arange(1, 25).view(2, 12)
    with torch.no_grad():
        theirs = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(tiny_model_path), tmp_path / "peft"
        ).eval()
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
        model.load(adapter)
        mine = model.plain.base(input_ids=ids).logits
        plain = AutoModelForCausalLM.from_pretrained(tiny_model_path)(input_ids=ids).logits
        torch.testing.assert_close(theirs(input_ids=ids).logits, mine, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(merged(input_ids=ids).logits, mine, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(plain, mine, atol=1e-2)


def test_a_spec_without_a_middle_is_written_as_it_ever_was(tiny_model_path):
    assert "middle" not in spec_of(tiny_model_path, middle=False).model_dump(mode="json")
    assert not isinstance(Models().of(spec_of(tiny_model_path, middle=False)), MiddleModel)
