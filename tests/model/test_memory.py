"""The estimate of memory is an upper one, close to what was measured and to what a step keeps."""

import pytest
import torch

from fccl.data.examples import PreferencePair
from fccl.model.encoding import encode
from fccl.model.loading import load_model
from fccl.model.memory import PROCESS, Shape, limit_of, own_memory, shape_of
from fccl.specs import ModelSpec

GPT2 = Shape(layers=12, width=768, vocabulary=50_257, parameters=124_439_808)


@pytest.mark.parametrize(("rows", "measured_gib"), [(8, 4.3), (16, 8.8)])
def test_gpt2_takes_at_most_the_estimate_and_not_much_less(rows, measured_gib):
    """The measured figures stand in docs/docker.md, with how they were made."""
    estimate = GPT2.training_bytes(rows * 512) / 2**30
    assert measured_gib <= estimate <= 1.25 * measured_gib


def test_what_a_step_keeps_for_its_backward_pass_is_within_the_estimate(tiny_model_path):
    spec = ModelSpec(name=str(tiny_model_path), lora_r=4, lora_alpha=8.0, lora_targets="all-linear", max_length=128)
    model = load_model(spec)
    shape = shape_of(model)
    assert (shape.layers, shape.width) == (2, 32)
    assert shape.parameters == sum({each.data_ptr(): each.numel() for each in model.weights().values()}.values())
    pairs = encode(model.tokenizer, "va", [PreferencePair("Say it", "a bird " * 60, "a tree " * 60)] * 4, 128)
    kept = {}
    note = lambda tensor: kept.setdefault(tensor.data_ptr(), tensor.numel() * tensor.element_size()) and tensor  # noqa: E731
    model.load(model.initial_adapter(0))
    weights = {each.data_ptr() for each in model.weights().values()}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model.loss_and_gradient(pairs, lambda scores: scores.sum())
    tokens = sum(len(row.ids) for pair in pairs for row in pair)
    step = sum(size for place, size in kept.items() if place not in weights)
    assert 0.1 < step / (shape.training_bytes(tokens) - shape.training_bytes(0)) <= 1


def test_a_container_s_limit_counts_and_no_limit_is_none(tmp_path):
    (tmp_path / "limit").write_text("1000\n")
    (tmp_path / "none").write_text("max\n")
    assert [limit_of(tmp_path / name, 5) for name in ("limit", "none", "missing")] == [1000, 5, 5]
    assert own_memory() > PROCESS
