"""The written-out GPT-2 against transformers and PEFT, whose gradients are autograd's."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

from fccl.model.activations import Activations
from fccl.model.encoding import Encoded
from fccl.model.frozen_layers import FrozenLayers
from fccl.model.gpt2_model import FlatFactors, gpt2_of
from fccl.model.packing import pack
from tests.examples import few

VOCABULARY, CONTEXT, SCALE = 97, 160, 2.0
TARGETS = {"c_attn": ["c_attn"], "all": ["c_attn", "c_proj", "c_fc"], "mlp": ["mlp.c_fc", "mlp.c_proj"]}


def peft_model(targets, dtype=torch.float64, layers=None, **changes):
    """A small random GPT-2 with LoRA whose B is not zero."""
    torch.manual_seed(0)
    shape = {"n_layer": 3, "n_embd": 24, "n_head": 3, "vocab_size": VOCABULARY, "n_positions": CONTEXT} | changes
    base = GPT2LMHeadModel(
        GPT2Config(resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=0, eos_token_id=0, **shape)
    )
    config = LoraConfig(r=4, lora_alpha=4 * SCALE, target_modules=TARGETS[targets], fan_in_fan_out=True)
    config.layers_to_transform = layers
    model = get_peft_model(base, config).eval().to(dtype)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def row(prompt, response, seed):
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, VOCABULARY, (prompt + response,), generator=draw).tolist()
    return Encoded(tuple(ids), prompt, truncated=False)


def pair(prompt, chosen, rejected, seed):
    first, second = row(prompt, chosen, seed), row(prompt, rejected, seed + 1)
    return (first, Encoded((*first.ids[:prompt], *second.ids[prompt:]), prompt, truncated=False))


def alone(model, encoded):
    """log p of each response token by transformers, the sequence by itself."""
    logits = model(input_ids=torch.tensor([encoded.ids])).logits[0]
    first = max(1, encoded.prompt_length)
    targets = torch.tensor(encoded.ids[first:])
    return torch.log_softmax(logits[first - 1 : -1], dim=-1).gather(1, targets.unsqueeze(1)).squeeze(1)


def factors(model):
    return {name: parameter for name, parameter in model.named_parameters() if "lora_" in name}


def engine(model):
    """The written-out model, and its factors."""
    flat = FlatFactors.of(factors(model))
    return gpt2_of(model.get_base_model(), flat, SCALE), flat


def gradients(flat):
    return flat.views(flat.gradient)


def far(found, expected):
    """The relative distance of two gradients, over all factors together."""
    apart = sum(float((found[name] - expected[name]).square().sum()) for name in expected)
    return (apart / sum(float(gradient.square().sum()) for gradient in expected.values())) ** 0.5


def both(model, prompts, slopes, entering=lambda gpt2: None):
    """Log-probabilities and gradients of the written-out model, and autograd's."""
    gpt2, flat = engine(model)
    found = gpt2.learn(pack(prompts), slopes, entering(gpt2))
    expected = torch.cat([alone(model, encoded) for responses in prompts for encoded in responses])
    model.zero_grad()
    expected.backward(slopes(expected.detach()))
    theirs = {name: parameter.grad for name, parameter in factors(model).items()}
    return found, expected.detach(), gradients(flat), theirs


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_log_probs_and_gradients_are_autograds(targets, dtype, limit):
    prompts = [(row(3, 5, 1),), (row(40, 100, 2),), pair(30, 60, 40, 3), pair(1, 1, 2, 5), (row(0, 4, 7),)]
    model = peft_model(targets, dtype)
    found, expected, mine, theirs = both(model, prompts, lambda log_probs: torch.cos(log_probs * 3))
    assert found.dtype == dtype
    assert torch.allclose(found, expected, atol=10 * limit)
    assert mine.keys() == theirs.keys()
    assert far(mine, theirs) < limit


lengths = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))


@settings(max_examples=few(50), deadline=None)
@given(pairs=st.lists(lengths, min_size=1, max_size=5), seed=st.integers(0, 99))
def test_a_pair_that_shares_its_prompt_is_two_sequences(pairs, seed):
    model = peft_model("all")
    prompts = [pair(*sizes, seed + 2 * index) for index, sizes in enumerate(pairs)]
    found, expected, mine, theirs = both(model, prompts, torch.sin)
    assert torch.allclose(found, expected, atol=1e-12)
    assert far(mine, theirs) < 1e-12


@settings(max_examples=few(50), deadline=None)
@given(sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=2, max_size=6), seed=st.integers(0, 99))
def test_packing_order_and_batch_splits_change_nothing_but_rounding(sizes, seed):
    model = peft_model("all")
    rows = [row(*size, seed + index) for index, size in enumerate(sizes)]
    whole, of_whole = engine(model)
    whole.learn(pack([(one,) for one in rows]), torch.ones_like)
    parts, of_parts = engine(model)
    for one in reversed(rows):
        parts.learn(pack([(one,)]), torch.ones_like)
    assert far(gradients(of_parts), gradients(of_whole)) < 1e-12


def test_scoring_gives_the_same_log_probs_as_learning():
    model = peft_model("all")
    prompts, (gpt2, _) = [(row(3, 5, 1),), pair(30, 60, 40, 3)], engine(model)
    assert torch.allclose(gpt2.log_probs(pack(prompts)), gpt2.learn(pack(prompts), torch.ones_like), atol=1e-13)


def test_the_head_is_made_in_chunks_that_change_nothing(monkeypatch):
    model = peft_model("c_attn")
    whole = both(model, [(row(10, 50, 1),)], torch.ones_like)
    monkeypatch.setattr("fccl.model.gpt2.LOGITS_AT_ONCE", 7 * VOCABULARY)
    parts = both(model, [(row(10, 50, 1),)], torch.ones_like)
    assert torch.allclose(whole[0], parts[0], atol=1e-13)
    assert far(parts[2], whole[2]) < 1e-13


def test_a_head_that_is_not_tied_is_used():
    model = peft_model("all", tie_word_embeddings=False)
    found, expected, mine, theirs = both(model, [(row(3, 5, 1),)], torch.ones_like)
    assert torch.allclose(found, expected, atol=1e-12)
    assert far(mine, theirs) < 1e-12


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("layers", [[1, 2], [2]])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_kept_activations_below_the_top_layers_change_nothing(targets, layers, dtype, limit):
    prompts = [(row(3, 5, 1),), (row(40, 100, 2),), pair(30, 60, 40, 3), (row(0, 4, 7),)]

    def entering(gpt2):
        lower = FrozenLayers(gpt2, Activations())
        for part in (prompts[2:], prompts[:1], prompts):
            found = lower.entering(part, {})
        assert torch.allclose(found, gpt2.entering(pack(prompts)), rtol=0, atol=10 * limit)
        return found

    found, expected, mine, theirs = both(peft_model(targets, dtype, layers), prompts, torch.sin, entering)
    assert len(theirs) == len(layers) * len(factors(peft_model(targets))) // 3
    assert torch.allclose(found, expected, atol=10 * limit)
    assert far(mine, theirs) < limit
