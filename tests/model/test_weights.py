"""What tells two models, or two machines, apart."""

import torch

from fccl.model.language_model import cpu_threads
from fccl.model.weights import arithmetic, weights_sha256


def test_the_hash_follows_the_base_weights_and_not_the_adapter(tiny_model):
    before = weights_sha256(tiny_model)
    tiny_model.load(tiny_model.initial_adapter(7))
    assert weights_sha256(tiny_model) == before
    weight = tiny_model.base.get_input_embeddings().weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[0, 0] += 1e-3
        assert weights_sha256(tiny_model) != before
        weight.copy_(kept)
    assert weights_sha256(tiny_model) == before


def test_the_arithmetic_names_libraries_device_and_threads(tiny_model):
    found = arithmetic(tiny_model)
    assert found["torch"] == torch.__version__
    assert (found["engine"], found["device"], found["dtype"]) == ("generic", "cpu", "torch.float32")
    with cpu_threads(torch.get_num_threads() + 1):
        other = arithmetic(tiny_model)
    assert {name for name in found if found[name] != other[name]} == {"threads"}
