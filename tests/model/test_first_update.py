"""The first factors, against a dense gradient that torch takes of transformers' own loss."""

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM

from fccl.adapters.middle import middles, without_effect
from fccl.data.examples import SftExample
from fccl.errors import ModelError
from fccl.model.encoding import encode
from fccl.model.first_update import GAIN, first_adapter
from fccl.model.language_model import GENERIC, GPT2
from fccl.model.loading import Models
from fccl.specs import ModelSpec

RANK = 6
EXAMPLES = [SftExample(f"What is {n}?", "It is " + "and so " * n + "on.") for n in range(5)]


def models(path, *engines, **changes):
    usual = {"name": str(path), "lora_r": RANK, "lora_alpha": 6.0, "max_length": 128, "middle": True} | changes
    return [Models().of(ModelSpec(**usual, engine=engine)) for engine in engines]


def dense_gradients(path, rows):
    """Of the mean loss of response tokens, by transformers alone: row after row, no padding."""
    model, tokens = AutoModelForCausalLM.from_pretrained(path), sum(row.response_length for (row,) in rows)
    for (row,) in rows:
        ids = torch.tensor([row.ids])
        logits = model(input_ids=ids).logits[0, row.prompt_length - 1 : -1]
        (functional.cross_entropy(logits, ids[0, row.prompt_length :], reduction="sum") / tokens).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("targets", ["auto", "all-linear"])
def test_the_factors_are_the_leading_directions_of_the_first_update(tiny_model_path, targets):
    """Where the gradient is clear of zero: of AdamW's first step, -sign(G), no rank-r product leaves less."""
    (model,) = models(tiny_model_path, GPT2, lora_targets=targets)
    rows = encode(model.tokenizer, "sft", EXAMPLES, 128)
    found, dense = first_adapter(model, rows, batch_size=2), dense_gradients(tiny_model_path, rows)
    for names in middles(model.form):
        weight = names.a.removeprefix("base_model.model.").partition(".lora_A.")[0] + ".weight"
        update = -np.sign(dense[weight].numpy().T.astype(np.float64))  # Conv1D: (in, out)
        a, b = found.tensors[names.a].double().numpy(), found.tensors[names.b].double().numpy()
        b = b / (GAIN * (b.shape[0] / RANK) ** 0.5)
        assert np.allclose(a @ a.T, np.eye(RANK), atol=1e-5)
        assert np.allclose(b.T @ b, np.eye(RANK), atol=1e-5)
        kept, values = np.diag(b.T @ update @ a.T), np.linalg.svd(update, compute_uv=False)
        assert np.allclose(kept, values[:RANK], rtol=0.02)
        assert not found.tensors[names.r].any()
    assert without_effect(found).sha256 == found.sha256


def test_they_are_the_same_every_time_in_both_engines_and_whatever_was_loaded_before(tiny_model_path):
    gpt2, generic = models(tiny_model_path, GPT2, GENERIC)
    rows = encode(gpt2.tokenizer, "sft", EXAMPLES, 128)
    found = first_adapter(gpt2, rows, batch_size=2, threads=1)
    gpt2.load(found)
    assert first_adapter(gpt2, rows, batch_size=2, threads=1).sha256 == found.sha256
    assert first_adapter(generic, rows, batch_size=2, threads=1).sha256 == found.sha256
    trained = [name for name, weight in generic.plain.base.named_parameters() if weight.requires_grad]
    assert all(".lora_" in name for name in trained)


def test_what_cannot_be_is_one_line(tiny_model_path):
    (model,) = models(tiny_model_path, GPT2)
    with pytest.raises(ModelError, match="no instruction"):
        first_adapter(model, [], batch_size=2)
    (wide,) = models(tiny_model_path, GPT2, lora_r=33)
    with pytest.raises(ModelError, match=r"LORA_R=33: .* has 32 directions") as caught:
        first_adapter(wide, encode(wide.tokenizer, "sft", EXAMPLES, 128), batch_size=2)
    assert "LORA_R=32" in caught.value.hint
