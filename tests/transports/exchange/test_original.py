"""The files of original peers: both dialects are read, nothing of another form."""

import io
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from transformers import AutoModelForCausalLM

from fccl.adapters.adapter import Adapter
from fccl.errors import AdapterError
from fccl.model.loading import load_model
from fccl.specs import ModelSpec
from fccl.transports.exchange.original import OriginalReader, in_memory, original_bytes
from tests.examples import few

A = "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight"
B = "base_model.model.transformer.h.0.attn.c_attn.lora_B.weight"
IN_MEMORY = {
    A: "base_model.model.transformer.h.0.attn.c_attn.lora_A.default.weight",
    B: "base_model.model.transformer.h.0.attn.c_attn.lora_B.default.weight",
}
ADAPTER = Adapter({A: torch.arange(6.0).view(2, 3), B: torch.arange(8.0).view(4, 2)})
READER = OriginalReader(ADAPTER.form)


def saved(tensors):
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getvalue()


def renamed(names=IN_MEMORY, **changes):
    return {names.get(name, name): tensor for name, tensor in ADAPTER.tensors.items()} | changes


def test_what_is_written_has_the_names_of_a_model_in_memory():
    state = torch.load(io.BytesIO(original_bytes(ADAPTER)), weights_only=True)
    assert list(state) == list(IN_MEMORY.values())
    assert all(torch.equal(state[IN_MEMORY[name]], tensor) for name, tensor in ADAPTER.tensors.items())


@pytest.mark.parametrize(
    "tensors", [renamed(), renamed({}), renamed({A: IN_MEMORY[A]}), dict(reversed(renamed().items()))]
)
def test_either_dialect_is_read(tensors):
    assert READER.read(saved(tensors), "it").sha256 == ADAPTER.sha256


names = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20).map(
    lambda text: f"x.{text}.lora_A.weight"
)


@settings(max_examples=few(50))
@given(st.lists(names, min_size=1, max_size=5, unique=True), st.integers(1, 4))
def test_whatever_is_written_is_read_again(names, size):
    adapter = Adapter({name: torch.full((size, index + 1), float(index)) for index, name in enumerate(names)})
    reader = OriginalReader(adapter.form)
    assert reader.read(original_bytes(adapter), "it").sha256 == adapter.sha256
    assert reader.read(saved(dict(adapter.tensors)), "it").sha256 == adapter.sha256


@given(
    st.text("ab.", max_size=9) | st.just("weight"),
    st.sampled_from(["weight", ".weight", "default", "a.weight", "a.default"]),
)
def test_two_names_never_become_one(one, other):
    for name in (other, f"{one}.weight", f".{one}", f"{one}.default"):
        assert (in_memory(one) == in_memory(name)) == (one == name)


OTHER = "base_model.model.transformer.h.0.mlp.c_fc.lora_A.default.weight"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            saved({IN_MEMORY[A]: torch.zeros(2, 3)}),
            f"it: the adapters have different tensors \\(missing: {B}; unexpected: none",
        ),
        (saved(renamed(**{OTHER: torch.zeros(2, 3)})), f"missing: none; unexpected: {OTHER}"),
        (saved({name.replace("default", "mine"): tensor for name, tensor in renamed().items()}), "lora_A.mine.weight"),
        (
            saved({name.removeprefix("base_model.model."): tensor for name, tensor in renamed().items()}),
            "unexpected: transformer.h.0",
        ),
        (saved({f"module.{name}": tensor for name, tensor in renamed().items()}), "unexpected: module.base_model"),
        (saved(renamed(**{IN_MEMORY[A]: torch.zeros(1, 3)})), r"lora_A.weight has shape \(1, 3\), expected \(2, 3\)"),
        (saved(renamed(**{IN_MEMORY[A]: torch.full((2, 3), torch.nan)})), "not finite"),
        (saved(renamed(**{IN_MEMORY[A]: torch.zeros(2, 3).half()})), "expected 'FloatStorage'"),
        (saved(renamed() | {A: torch.zeros(2, 3)}), f"it has {A} twice, under both of its names"),
        (saved({}), "different tensors"),
        (ADAPTER.to_bytes()[:100], "it is not a"),
        (bytes(10**6), "it has 1,000,000 bytes, at most 73,784 are possible"),
    ],
)
def test_anything_else_is_refused_with_its_reason(content, reason):
    with pytest.raises(AdapterError, match=reason) as caught:
        READER.read(content, "it")
    assert re.match("it[: ]", str(caught.value))


@pytest.mark.parametrize("count", [1, 100, 2000])
def test_no_file_of_the_form_is_over_the_bound(count):
    """Short tensors, of which most of a file is headers; a name as long as those of large models."""
    adapter = Adapter(
        {f"base_model.model.{'model.layers.' * 8}{index}.lora_A.weight": torch.zeros(1, 2) for index in range(count)}
    )
    assert len(original_bytes(adapter)) <= OriginalReader(adapter.form).max_bytes


# --- a real model in the memory of somebody else's program


def peft_model(path, **lora):
    base = AutoModelForCausalLM.from_pretrained(path)
    usual = {"r": 4, "lora_alpha": 8, "target_modules": ["c_attn"], "fan_in_fan_out": True, "task_type": "CAUSAL_LM"}
    return get_peft_model(base, LoraConfig(**(usual | lora)))


@pytest.fixture(scope="module")
def federation(tiny_model_path):
    """The adapter of a federation with LORA_TARGETS=c_attn and LORA_R=4."""
    spec = ModelSpec(name=str(tiny_model_path), lora_r=4, lora_alpha=8.0, lora_targets="c_attn", max_length=128)
    return load_model(spec).initial_adapter(seed=1)


def test_a_model_in_memory_takes_all_of_the_global_file_and_gives_it_back(tiny_model_path, federation):
    model = peft_model(tiny_model_path)
    state = torch.load(io.BytesIO(original_bytes(federation)), weights_only=True)
    assert model.load_state_dict(state, strict=False).unexpected_keys == []
    reader = OriginalReader(federation.form)
    for collected in (
        {name: value for name, value in model.state_dict().items() if "lora_" in name},
        {name: value for name, value in model.named_parameters() if value.requires_grad},
        get_peft_model_state_dict(model),
    ):
        assert reader.read(saved(collected), "it").sha256 == federation.sha256


@pytest.mark.parametrize(
    ("lora", "reason"),
    [
        ({"r": 2}, r"h.0.attn.c_attn.lora_A.weight has shape \(2, 32\), expected \(4, 32\)"),
        ({"target_modules": ["c_attn", "c_proj"]}, r"unexpected: \S+attn.c_proj.lora_A.default.weight"),
        (
            {"target_modules": ["c_fc"]},
            r"missing: \S+c_attn.lora_A.weight, .*unexpected: \S+c_fc.lora_A.default.weight",
        ),
        ({"use_dora": True}, r"unexpected: \S+lora_magnitude_vector"),
        ({"layers_to_transform": [0]}, r"missing: \S+h.1.attn.c_attn.lora_A.weight"),
    ],
)
def test_a_model_that_is_set_otherwise_is_told_where(tiny_model_path, federation, lora, reason):
    collected = {
        name: value for name, value in peft_model(tiny_model_path, **lora).state_dict().items() if "lora_" in name
    }
    with pytest.raises(AdapterError, match=reason):
        OriginalReader(federation.form).read(saved(collected), "it")
