"""Packed rows through transformers' own layers: the same model with padded rows is the oracle."""

from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM

from fccl.model import packed_attention
from fccl.model.encoding import Encoded
from fccl.model.objectives import objective_for
from fccl.model.packed_attention import attention, can_pack, pack_for, variable_length_kernel
from fccl.model.packing import pack
from fccl.model.peft_model import PeftLanguageModel
from fccl.model.precision import keep_in
from fccl.specs import ModelSpec, PreferenceSpec
from tests.examples import few

CONTEXT, VOCABULARY, CPU = 256, 97, torch.device("cpu")
GROUPED = {
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
}  # two heads share keys and values
SHAPES = {
    "gpt2": {"n_layer": 2, "n_embd": 32, "n_head": 4, "n_positions": CONTEXT},
    "llama": {"hidden_size": 32, "intermediate_size": 48, **GROUPED},
    "qwen2": {"hidden_size": 32, "intermediate_size": 48, **GROUPED},
    "qwen3": {"hidden_size": 32, "intermediate_size": 48, "head_dim": 16, **GROUPED},
    "mistral": {"hidden_size": 32, "intermediate_size": 48, "sliding_window": CONTEXT, **GROUPED},
    "gpt_neox": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4},
    "phi": {"hidden_size": 32, "intermediate_size": 48, **GROUPED},
    "opt": {
        "hidden_size": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "word_embed_proj_dim": 32,
    },
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 8,
    },
}
PACKING = [name for name in SHAPES if name != "gpt_neo"]


def config_of(kind, **changes):
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "initializer_range": 0.1}
    length = {} if kind == "gpt2" else {"max_position_embeddings": CONTEXT}
    return AutoConfig.for_model(kind, vocab_size=VOCABULARY, **ends, **length, **(SHAPES[kind] | changes))


def language_model(kind, dtype=torch.float64, **changes):
    """A random model of this architecture, LoRA with B ≠ 0 on every linear layer."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        base = AutoModelForCausalLM.from_config(config_of(kind, **changes))
        lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", fan_in_fan_out=kind == "gpt2")
        model = get_peft_model(base, lora).eval()
        factors = {name: each for name, each in model.named_parameters() if "lora_" in name}
        for factor in factors.values():
            torch.nn.init.normal_(factor, std=0.1)
    model.to(dtype)  # after the draw: the numbers are the same in every type
    spec = ModelSpec(name=kind, lora_r=4, lora_alpha=8, lora_targets="all-linear", max_length=CONTEXT)
    return PeftLanguageModel(spec, model, SimpleNamespace(pad_token_id=0), factors, CPU)


def padded(model):
    """The same model in memory with padded rows."""
    return replace(model, padded=True)


def ids(count, seed):
    return torch.randint(0, VOCABULARY, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def row(prompt, response, seed):
    return Encoded(tuple(ids(prompt + response, seed)), prompt, truncated=False)


def pair(prompt, chosen, rejected, seed):
    first = row(prompt, chosen, seed)
    return (first, Encoded((*first.ids[:prompt], *ids(rejected, seed + 1)), prompt, truncated=False))


def far(found, expected):
    """The relative distance of two gradients, over all factors together."""
    apart = sum(float((found[name].double() - expected[name].double()).square().sum()) for name in expected)
    return (apart / sum(float(part.double().square().sum()) for part in expected.values())) ** 0.5


BATCHES = {
    "sft": [(row(3, 5, 1),), (row(60, 190, 2),), (row(0, 4, 3),), (row(1, 1, 4),)],
    "va": [pair(3, 5, 2, 1), pair(60, 190, 20, 3), pair(30, 1, 150, 5), pair(1, 1, 1, 7)],
}


def learn(model, phase):
    """The phase's own loss, and its gradient. β is small: no pair of a random model may have a slope of zero."""
    rows = BATCHES[phase]
    reference = torch.zeros(len(rows), 2) if phase == "va" else None
    objective = objective_for(phase, rows, reference, PreferenceSpec(beta=0.002))
    return model.loss_and_gradient(rows, lambda log_probs: objective.total(range(len(rows)), log_probs))


@pytest.fixture(scope="module", params=PACKING)
def exact(request):
    return language_model(request.param)


@contextmanager
def tokens_seen(model):
    """How many rows and tokens of each the model's embeddings were asked for, a pair for each time."""
    seen = []
    embeddings = model.model.get_input_embeddings()
    hook = embeddings.register_forward_hook(lambda module, given, found: seen.append(tuple(found.shape[:2])))
    try:
        yield seen
    finally:
        hook.remove()


@pytest.mark.parametrize("phase", BATCHES)
def test_losses_and_gradients_are_those_of_padded_rows(exact, phase):
    with tokens_seen(exact) as packed:
        found = learn(exact, phase)
    with tokens_seen(exact) as rectangle:
        expected = learn(padded(exact), phase)
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    assert found.gradient.keys() == expected.gradient.keys()
    assert far(found.gradient, expected.gradient) < 1e-6
    assert {rows for rows, _ in packed} == {1}  # they have not gone one way
    assert max(rows for rows, _ in rectangle) > 1


@pytest.mark.parametrize("phase", BATCHES)
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_float32_is_within_rounding_of_float64(kind, phase):
    found, expected = learn(language_model(kind, torch.float32), phase), learn(padded(language_model(kind)), phase)
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    assert far(found.gradient, expected.gradient) < 1e-5


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def small(request):
    return language_model(request.param)


lengths = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))


@settings(max_examples=few(25), deadline=None)
@given(sizes=st.lists(lengths, min_size=2, max_size=5), seed=st.integers(0, 99), data=st.data())
def test_batch_splits_and_orders_change_nothing_but_rounding(small, sizes, seed, data):
    pairs = [pair(*size, seed + 2 * index) for index, size in enumerate(sizes)]
    whole = small.loss_and_gradient(pairs, lambda log_probs: log_probs.sin().sum())
    order = data.draw(st.permutations(pairs))
    cut = data.draw(st.integers(1, len(pairs) - 1))
    parts = [
        small.loss_and_gradient(part, lambda log_probs: log_probs.sin().sum()) for part in (order[:cut], order[cut:])
    ]
    together = {name: parts[0].gradient[name] + parts[1].gradient[name] for name in whole.gradient}
    assert sum(part.loss for part in parts) == pytest.approx(whole.loss, rel=1e-6, abs=1e-6)
    assert far(together, whole.gradient) < 1e-6


def test_a_window_shorter_than_the_context_keeps_the_rows_padded():
    narrow, wide = language_model("mistral", sliding_window=8), language_model("mistral")
    assert (can_pack(narrow.base.config, CONTEXT), can_pack(wide.base.config, CONTEXT)) == (False, True)
    assert can_pack(narrow.base.config, 8)
    found = narrow.response_log_probs(BATCHES["va"])
    assert torch.equal(found, padded(narrow).response_log_probs(BATCHES["va"]))
    assert not torch.allclose(found, wide.response_log_probs(BATCHES["va"]), rtol=1e-3)


def test_an_architecture_that_is_not_known_keeps_its_rows_padded():
    model = language_model("gpt_neo")
    assert not can_pack(model.base.config, CONTEXT)
    found, expected = learn(model, "sft"), learn(padded(model), "sft")
    assert far(found.gradient, expected.gradient) == 0


def test_the_model_has_its_own_attention_again_even_after_a_failure(small):
    before = small.base.config._attn_implementation
    small.response_log_probs(BATCHES["va"])
    assert small.base.config._attn_implementation == before
    with pytest.raises(IndexError):
        small.response_log_probs([(Encoded((1, VOCABULARY), 1, truncated=False),)])
    assert small.base.config._attn_implementation == before != packed_attention.NAME


def bfloat16(model):
    """The same model with its frozen base in bfloat16."""
    keep_in(model.model, torch.bfloat16)
    for factor in model.factors.values():
        factor.data = factor.data.float()
    return replace(model, spec=model.spec.model_copy(update={"base_precision": "bf16"}))


@pytest.mark.parametrize("phase", BATCHES)
def test_a_base_in_bfloat16_is_packed_too_and_its_gradients_are_float32(phase):
    """bfloat16 has eight bits: an error of some 1 in 100 a product."""
    exact, model = language_model("llama", torch.float32), bfloat16(language_model("llama", torch.float32))
    found, expected = learn(model, phase), learn(exact, phase)
    assert found.loss == pytest.approx(expected.loss, rel=0.02)
    assert {part.dtype for part in found.gradient.values()} == {torch.float32}
    assert 1e-4 < far(found.gradient, expected.gradient) < 0.1


def by_loops(q, k, v, cu_q, cu_k, max_q, max_k, *, scale, window_size, enable_gqa):
    """`varlen_attn` as its page describes it, a sequence at a time."""
    assert window_size == (-1, 0)
    assert cu_q.dtype == cu_k.dtype == torch.int32
    assert {part.dtype for part in (q, k, v)} == {torch.bfloat16}
    out = torch.empty_like(q)
    for start, end in zip(cu_q.tolist(), cu_q.tolist()[1:], strict=False):
        assert end - start <= min(max_q, max_k)
        one = (part[start:end].transpose(0, 1).float() for part in (q, k, v))
        found = functional.scaled_dot_product_attention(*one, is_causal=True, scale=scale, enable_gqa=enable_gqa)
        out[start:end] = found.transpose(0, 1).to(out.dtype)
    return out


@pytest.fixture
def ampere(monkeypatch):
    """As if this device had torch's kernel for variable lengths."""
    monkeypatch.setattr(packed_attention, "has_variable_length", lambda device: True)
    monkeypatch.setattr(packed_attention, "variable_length_kernel", lambda: by_loops)


@pytest.mark.parametrize("heads", [4, 2])
def test_the_kernel_for_variable_lengths_is_asked_for_the_same_attention(heads, request):
    packed, draw = pack(BATCHES["sft"]), torch.Generator().manual_seed(1)
    tokens = len(packed.ids)
    query, key, value = (torch.randn(1, count, tokens, 16, generator=draw).bfloat16() for count in (4, heads, heads))
    expected, _ = attention(None, query, key, value, None, packed=packed, scaling=0.4)
    request.getfixturevalue("ampere")
    found, _ = attention(None, query, key, value, None, packed=packed, scaling=0.4)
    assert found.shape == (1, tokens, 4, 16)
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)


def test_with_that_kernel_each_response_is_a_sequence_and_the_numbers_stay(ampere):
    packed = pack_for(BATCHES["va"], CPU, torch.bfloat16)
    assert packed.mask is None
    assert packed.starts.tolist() == [0, 8, 13, 263, 343, 374, 554, 556, 558]
    model = bfloat16(language_model("qwen2", torch.float32))
    found, expected = (each.response_log_probs(BATCHES["va"]) for each in (model, padded(model)))
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.1)


def test_in_float32_the_responses_of_a_pair_share_their_prompt(ampere):
    assert pack_for(BATCHES["va"], CPU, torch.float32).starts.tolist() == [0, 10, 280, 461, 464]


@pytest.mark.skipif(variable_length_kernel() is None, reason="the installed torch has no such kernel")
def test_the_installed_torch_takes_the_call(monkeypatch):
    """On the meta device: shapes and arguments without numbers."""
    monkeypatch.setattr(packed_attention, "has_variable_length", lambda device: True)
    packed = pack(BATCHES["sft"]).to(torch.device("meta"))
    query, key = (torch.empty(1, heads, len(packed.ids), 16, dtype=torch.bfloat16, device="meta") for heads in (4, 2))
    found, _ = attention(None, query, key, key, None, packed=packed, scaling=0.4)
    assert found.shape == (1, len(packed.ids), 4, 16)
