"""The precision of the frozen base: how far losses and gradients are from float32, and who refuses what."""

import json
import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from fccl.adapters.adapter import Adapter
from fccl.adapters.ranks import of_rank
from fccl.data.examples import PreferencePair, SftExample
from fccl.errors import ModelError
from fccl.model.encoding import encode
from fccl.model.loading import load_model
from fccl.model.objectives import objective_for
from fccl.model.precision import float32_head, int8_is_fast, keep_in, require_int8, usual_precision
from fccl.model.weights import arithmetic, weights_sha256
from fccl.specs import ModelSpec, PreferenceSpec

EXAMPLES = [SftExample(f"What is {n}?", "It is " + "and so " * n + "on.") for n in range(5)]
PAIRS = [PreferencePair(f"What is {n}?", "It is " + "and so " * n + "on.", "Go away. " * (5 - n)) for n in range(5)]
LESS = [("generic", name) for name in ("bf16", "int8", "bnb-int8", "bnb-nf4")] + [("gpt2", "bf16"), ("gpt2", "int8")]
# The least cosine of the gradient with float32's, and how far a loss may be from float32's
COSINE = {"bf16": 0.9995, "int8": 0.9995, "bnb-int8": 0.999, "bnb-nf4": 0.9}
NEAR = {"bf16": 5e-3, "int8": 5e-3, "bnb-int8": 5e-3, "bnb-nf4": 5e-2}


def spec_of(path, **changes):
    usual = {"name": str(path), "lora_r": 4, "lora_alpha": 8.0, "lora_targets": "all-linear", "max_length": 128}
    return ModelSpec(**usual | changes)


def random_adapter(form, seed):
    draw = torch.Generator().manual_seed(seed)
    return Adapter({name: 0.1 * torch.randn(shape, generator=draw) for name, shape in form.shapes.items()})


@pytest.fixture(scope="module")
def exact(tiny_model_path):
    return load_model(spec_of(tiny_model_path))


@pytest.fixture(scope="module", params=LESS, ids="-".join)
def less(request, tiny_model_path):
    """The same model at a lower precision, of each engine that has it."""
    engine, precision = request.param
    return load_model(spec_of(tiny_model_path, engine=engine, base_precision=precision))


def learned(model, phase, adapter):
    """The loss of all examples and its gradient, under this adapter."""
    rows = encode(model.tokenizer, phase, EXAMPLES if phase == "sft" else PAIRS, 128)
    reference = torch.zeros(len(rows), 2) if phase == "va" else None
    objective = objective_for(phase, rows, reference, PreferenceSpec(beta=0.01))
    model.load(adapter)
    return model.loss_and_gradient(rows, lambda log_probs: objective.total(range(len(rows)), log_probs))


def flat(gradient):
    return torch.cat([gradient[name].double().reshape(-1) for name in sorted(gradient)])


@pytest.mark.parametrize("phase", ["sft", "va"])
@pytest.mark.parametrize("rank", [4, 11])
def test_losses_and_gradients_are_near_those_of_float32_for_wider_adapters_too(exact, less, phase, rank):
    adapter = random_adapter(of_rank(exact.form, rank), seed=rank)
    theirs, mine = learned(exact, phase, adapter), learned(less, phase, adapter)
    one, other = flat(mine.gradient), flat(theirs.gradient)
    assert mine.loss == pytest.approx(theirs.loss, rel=NEAR[less.spec.base_precision])
    assert mine.loss != theirs.loss
    assert float(one @ other / (one.norm() * other.norm())) > COSINE[less.spec.base_precision]
    assert {part.dtype for part in mine.gradient.values()} == {torch.float32}


def test_scores_are_near_those_of_float32(exact, less):
    rows, adapter = encode(exact.tokenizer, "va", PAIRS, 128), random_adapter(exact.form, seed=3)
    for model in (exact, less):
        model.load(adapter)
    found = less.response_log_probs(rows)
    near = NEAR[less.spec.base_precision]
    assert torch.allclose(found.double(), exact.response_log_probs(rows).double(), rtol=near)


def test_the_same_calls_give_the_same_bytes_also_after_another_adapter(less):
    narrow, wide = random_adapter(less.form, seed=3), random_adapter(of_rank(less.form, 9), seed=4)
    first = learned(less, "sft", narrow)
    learned(less, "sft", wide)
    second = learned(less, "sft", narrow)
    assert first.loss == second.loss
    assert all(torch.equal(part, second.gradient[name]) for name, part in first.gradient.items())


def test_factors_stay_float32_and_a_loaded_adapter_comes_out_as_it_went_in(less):
    adapter = random_adapter(less.form, seed=5)
    less.load(adapter)
    assert {factor.dtype for factor in less.factors.values()} == {torch.float32}
    assert less.adapter().sha256 == adapter.sha256


def test_a_merged_export_is_float32_and_the_bytes_of_a_float32_run(exact, less, tmp_path):
    adapter = random_adapter(exact.form, seed=6)
    for name, model in (("exact", exact), ("less", less)):
        model.load(adapter)
        before = weights_sha256(model)
        model.write_merged(adapter, tmp_path / name)
        assert weights_sha256(model) == before
        assert model.adapter().sha256 == adapter.sha256
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("exact", "less")]
    assert weights[0] == weights[1]
    assert json.loads((tmp_path / "less" / "config.json").read_text())["dtype"] == "float32"
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "less").dtype == torch.float32


def test_an_adapter_export_has_the_bytes_of_a_float32_run(exact, less, tmp_path):
    adapter = random_adapter(exact.form, seed=6)
    for name, model in (("exact", exact), ("less", less)):
        (tmp_path / name).mkdir()
        model.write_adapter(adapter, tmp_path / name)
    files = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("exact", "less")]
    assert files[0] == files[1]


def test_continuations_are_made_at_every_precision(exact, less):
    """The written-out engine generates with the float32 weights under int8; all else with its own products."""
    prompts = [row[0].ids[:5] for row in encode(exact.tokenizer, "sft", EXAMPLES, 128)]
    for model in (exact, less):
        model.load(random_adapter(model.form, seed=3))
    found = less.continuations(prompts, 6)
    assert [len(row) for row in found] == [6] * len(prompts)
    if (less.engine, less.spec.base_precision) == ("gpt2", "int8"):
        assert found == exact.continuations(prompts, 6)


def test_kept_log_probabilities_of_one_precision_are_not_those_of_another(exact, less):
    assert arithmetic(less) != arithmetic(exact)
    if less.spec.base_precision == "int8":  # the one that keeps the float32 weights
        exact.load(random_adapter(exact.form, 1))
        less.load(random_adapter(exact.form, 1))
        assert weights_sha256(less) == weights_sha256(exact)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
@pytest.mark.parametrize("engine", ["generic", "auto"])
def test_any_architecture_is_computed_in_fewer_bits(llama_path, engine, precision):
    exact, less = (load_model(spec_of(llama_path, engine=engine, base_precision=name)) for name in ("fp32", precision))
    adapter = random_adapter(exact.form, seed=2)
    theirs, mine = learned(exact, "sft", adapter), learned(less, "sft", adapter)
    one, other = flat(mine.gradient), flat(theirs.gradient)
    assert float(one @ other / (one.norm() * other.norm())) > COSINE[precision]
    assert mine.loss == pytest.approx(theirs.loss, rel=5e-3)
    assert mine.loss != theirs.loss


@pytest.mark.int8
def test_the_written_out_engine_refuses_another_architecture_in_int8_too(llama_path):
    with pytest.raises(ModelError, match="ENGINE=gpt2") as error:
        load_model(spec_of(llama_path, engine="gpt2", base_precision="int8"))
    assert "ENGINE=generic" in error.value.hint


@pytest.fixture
def gpu(monkeypatch):
    """A process with a GPU, as far as the choice of a precision can tell."""
    monkeypatch.setattr("fccl.model.precision.own_device", lambda: torch.device("cuda"))


def test_auto_is_float32_on_a_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert usual_precision() == "fp32"


def test_auto_is_bfloat16_on_a_gpu(gpu):
    assert usual_precision() == "bf16"


@pytest.mark.parametrize("engine", ["gpt2", "auto", "generic"])
def test_int8_on_a_gpu_is_refused_before_anything_is_loaded(gpu, tiny_model_path, engine):
    with pytest.raises(ModelError, match=r"BASE_PRECISION=int8: .* this process has a GPU") as error:
        load_model(spec_of("/no/such/folder", engine=engine, base_precision="int8"))
    assert "BASE_PRECISION=bf16" in error.value.hint


def test_int8_without_a_kernel_is_refused_with_the_librarys_reason(monkeypatch):
    def missing(matrix):
        raise AttributeError("no attribute 'qlinear_prepack'\nand more")

    monkeypatch.setattr("fccl.model.precision.Packed8", SimpleNamespace(of=missing))
    with pytest.raises(ModelError, match=r"has no int8 products \(no attribute 'qlinear_prepack'\)"):
        require_int8("int8")
    require_int8("fp32")


def test_an_int8_kernel_that_computes_something_else_is_refused(monkeypatch):
    wrong = SimpleNamespace(product=lambda rows: 2 * rows @ rows.T)
    monkeypatch.setattr("fccl.model.precision.Packed8", SimpleNamespace(of=lambda matrix: wrong))
    with pytest.raises(ModelError, match="int8 products are wrong"):
        require_int8("int8")


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="these are x86's instructions")
@pytest.mark.parametrize("instructions", ["SSE41", "AVX2", "AVX512_CORE"])
def test_a_processor_whose_int8_sums_saturate_is_refused(instructions):
    """The library is told to use no newer ones: a real kernel, and really wrong."""
    asks = "from fccl.model.precision import require_int8; require_int8('int8')"
    found = subprocess.run(
        [sys.executable, "-c", asks],
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": instructions},
        capture_output=True,
        text=True,
    )
    assert "ModelError: BASE_PRECISION=int8: this machine's int8 products are wrong" in found.stderr


@pytest.mark.parametrize(
    ("has", "fast"), [({"avx2": True}, False), ({"avx_vnni": True}, True), ({"amx_int8": True, "avx2": True}, True)]
)
def test_a_processor_without_int8_instructions_is_known(monkeypatch, has, fast):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    assert int8_is_fast() is fast


def test_a_torch_that_cannot_say_is_believed(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert int8_is_fast()


def test_the_head_of_a_bfloat16_model_gives_float32_logits():
    """In bfloat16 logits near -100 would be multiples of 0.5."""
    head = nn.Linear(8, 5, bias=True).bfloat16()
    hidden = torch.randn(3, 8, generator=torch.Generator().manual_seed(1)).bfloat16()
    expected = hidden.double() @ head.weight.double().T + head.bias.double()
    found = float32_head(head)(hidden)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_the_head_of_a_float32_model_is_left_alone():
    head = nn.Linear(8, 5)
    assert float32_head(head) is head


def test_weights_are_kept_in_a_type_and_buffers_as_they_were():
    module = nn.BatchNorm1d(3)
    keep_in(module, torch.bfloat16)
    assert {weight.dtype for weight in module.parameters()} == {torch.bfloat16}
    assert module.running_mean.dtype == torch.float32
