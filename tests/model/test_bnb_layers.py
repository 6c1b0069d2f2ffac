"""The base in 8 and 4 bits: numbers against the papers' formulas, losses and gradients against the rounded model."""

import math
import sys

import pytest
import torch
from scipy.stats import norm
from torch import nn
from transformers.pytorch_utils import Conv1D

from fccl.adapters.adapter import Adapter
from fccl.adapters.ranks import of_rank
from fccl.data.examples import PreferencePair, SftExample
from fccl.errors import ModelError, SettingsError
from fccl.model import precision as precisions
from fccl.model.bnb_layers import BNB, BnbInt8, BnbNf4, quantised_of
from fccl.model.encoding import encode
from fccl.model.loading import load_model
from fccl.model.objectives import objective_for
from fccl.model.weights import weights_sha256
from fccl.specs import ModelSpec, PreferenceSpec

EXAMPLES = [SftExample(f"What is {n}?", "It is " + "and so " * n + "on.") for n in range(5)]
PAIRS = [PreferencePair(f"What is {n}?", "It is " + "and so " * n + "on.", "Go away. " * (5 - n)) for n in range(5)]
SHAPES = [(24, 40), (64, 128), (33, 10)]  # blocks of 64 within rows, across them, and one that is not full
OFFSET = 0.9677083  # of QLoRA's outermost quantile


def spec_of(path, **changes):
    usual = {"name": str(path), "lora_r": 4, "lora_alpha": 8.0, "lora_targets": "all-linear", "max_length": 128}
    return ModelSpec(**usual | changes)


def matrix_of(shape, seed=3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def nf4_levels():
    """QLoRA, section 3: 8 quantiles of a normal variable on the positive side, 7 on the negative, and zero."""
    positive = norm.ppf(torch.linspace(OFFSET, 0.5, 9)[:-1].double().numpy())
    negative = -norm.ppf(torch.linspace(OFFSET, 0.5, 8)[:-1].double().numpy())
    levels = torch.tensor(sorted([*positive, 0.0, *negative]))
    return levels / levels.max()


@pytest.mark.parametrize("shape", SHAPES)
def test_nf4_is_the_nearest_quantile_times_the_largest_weight_of_its_block(shape):
    weight = matrix_of(shape)
    found = BnbNf4(weight, None).matrix(torch.float32)
    flat, expected, levels = weight.double().flatten(), [], nf4_levels()
    for block in flat.split(64):
        largest = block.abs().max()
        nearest = (block[:, None] / largest - levels).abs().argmin(1)
        expected.append(levels[nearest] * largest)
    assert torch.allclose(found.double().flatten(), torch.cat(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_int8_is_a_whole_number_times_a_scale_of_the_output_channel(shape):
    weight = matrix_of(shape)
    halves = weight.half().double()
    scales = halves.abs().amax(1, keepdim=True) / 127
    found = BnbInt8(weight, None).matrix(torch.float32).double()
    assert torch.allclose(found / scales, (found / scales).round(), atol=1e-4)
    assert float(((found - halves) / scales).abs().max()) < 0.51


def test_the_numbers_are_those_of_the_librarys_own_layers():
    import bitsandbytes

    weight = matrix_of((24, 64))
    four = bitsandbytes.nn.Linear4bit(64, 24, bias=False, compress_statistics=False, quant_type="nf4")
    eight = bitsandbytes.nn.Linear8bitLt(64, 24, bias=False, has_fp16_weights=False)
    for layer, mine in ((four, BnbNf4(weight, None)), (eight, BnbInt8(weight, None))):
        layer.load_state_dict({"weight": weight})
        assert torch.equal(layer.to("cpu").weight.data.flatten(), mine.numbers.flatten())


@pytest.mark.parametrize("precision", sorted(BNB))
@pytest.mark.parametrize("bias", [True, False])
def test_both_products_are_those_of_the_matrix_with_the_directions_beside_it(precision, bias):
    c = matrix_of((24,), 5) if bias else None
    frozen = BNB[precision](matrix_of((24, 40)), c)
    x, d_y, b, a = matrix_of((7, 40), 6), matrix_of((7, 24), 7), matrix_of((24, 3), 8), matrix_of((3, 40), 9)
    plain = frozen.matrix(torch.float32).double()
    for beside, dense in (((None, None), plain), ((b, a), plain + b.double() @ a.double()), ((None, None), plain)):
        frozen.hold(*beside)
        expected = x.double() @ dense.T + (c.double() if bias else 0)
        assert torch.allclose(frozen(x).double(), expected, rtol=1e-5, atol=1e-5)
        assert torch.allclose(frozen.back(d_y).double(), d_y.double() @ dense, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", sorted(BNB))
def test_the_matrix_in_bfloat16_which_a_gpu_multiplies_is_the_float32_one_rounded(precision):
    frozen = BNB[precision](matrix_of((64, 128)), None)
    assert torch.allclose(frozen.matrix(torch.bfloat16).float(), frozen.matrix(torch.float32), rtol=2**-8)


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def path(request, tiny_model_path, llama_path):
    """A model whose layers keep (in, out), and one whose layers keep (out, in)."""
    return tiny_model_path if request.param == "gpt2" else llama_path


@pytest.fixture(scope="module", params=sorted(BNB))
def both(request, path):
    """The model in few bits, and in float32 with the same rounded weights: the reference."""
    few = load_model(spec_of(path, base_precision=request.param))
    whole = load_model(spec_of(path, engine="generic"))
    for name, layer in few.base.named_modules():
        if (quantised := quantised_of(layer)) is not None:
            own, matrix = whole.base.get_submodule(name), quantised.matrix(torch.float32)
            own.weight.data = matrix.T.contiguous() if isinstance(own, Conv1D) else matrix
    return few, whole


def learned(model, phase, adapter):
    """The loss of all examples and its gradient, under this adapter."""
    rows = encode(model.tokenizer, phase, EXAMPLES if phase == "sft" else PAIRS, 128)
    reference = torch.zeros(len(rows), 2) if phase == "va" else None
    objective = objective_for(phase, rows, reference, PreferenceSpec(beta=0.01))
    model.load(adapter)
    return model.loss_and_gradient(rows, lambda log_probs: objective.total(range(len(rows)), log_probs))


def adapter_of(form, rank):
    draw = torch.Generator().manual_seed(rank)
    return Adapter(
        {name: 0.1 * torch.randn(shape, generator=draw) for name, shape in of_rank(form, rank).shapes.items()}
    )


@pytest.mark.parametrize("phase", ["sft", "va"])
@pytest.mark.parametrize("rank", [4, 11])
def test_loss_and_lora_gradients_are_those_of_the_dequantised_model_for_wider_adapters_too(both, phase, rank):
    few, whole = both
    adapter = adapter_of(few.form, rank)
    mine, theirs = learned(few, phase, adapter), learned(whole, phase, adapter)
    assert mine.loss == pytest.approx(theirs.loss, rel=1e-5)
    assert set(mine.gradient) == set(theirs.gradient)
    for name, part in theirs.gradient.items():
        assert float((mine.gradient[name] - part).norm()) <= 1e-4 * float(part.norm()), name


def test_a_wide_adapter_leaves_no_trace(both):
    few, _ = both
    narrow = adapter_of(few.form, 4)
    first, kept = learned(few, "sft", narrow), weights_sha256(few)
    learned(few, "sft", adapter_of(few.form, 11))
    assert weights_sha256(few) != kept
    again = learned(few, "sft", narrow)
    assert (again.loss, weights_sha256(few)) == (first.loss, kept)
    assert all(torch.equal(part, again.gradient[name]) for name, part in first.gradient.items())


def test_the_float32_weights_of_the_layers_are_let_go_and_the_head_is_kept(both):
    few, whole = both
    layers = [layer for layer in few.base.modules() if quantised_of(layer) is not None]
    kept = sum(buffer.nbytes for layer in layers for buffer in layer.quantised.buffers() if buffer.ndim > 1)
    counted = sum(math.prod(quantised_of(layer).matrix(torch.float32).shape) for layer in layers)
    assert {layer.weight.numel() for layer in layers} == {0}
    assert kept == counted * {"bnb-int8": 1, "bnb-nf4": 0.5}[few.spec.base_precision]
    assert torch.equal(few.base.get_output_embeddings().weight, whole.base.get_output_embeddings().weight)


def test_auto_takes_the_generic_engine_and_the_written_out_one_refuses(tiny_model_path):
    assert load_model(spec_of(tiny_model_path, engine="auto", base_precision="bnb-nf4")).engine == "generic"
    with pytest.raises(ModelError, match="ENGINE=gpt2 does not compute BASE_PRECISION=bnb-nf4") as error:
        load_model(spec_of("/no/such/folder", engine="gpt2", base_precision="bnb-nf4"))
    assert "ENGINE=auto" in error.value.hint


def test_without_the_library_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(SettingsError, match="BASE_PRECISION=bnb-int8 needs bitsandbytes") as error:
        load_model(spec_of("/no/such/folder", base_precision="bnb-int8"))
    assert error.value.hint == 'pip install "fccl[bitsandbytes]"'


class Wrong(nn.Module):
    """Rounds everything to zero."""

    def matrix(self, kind):
        return torch.zeros(64, 64, dtype=kind)


def broken(weight, bias):
    raise RuntimeError("no kernel image\nand more")


@pytest.mark.parametrize(
    ("made", "line"),
    [(lambda weight, bias: Wrong(), "rounds wrongly"), (broken, r"does not work here \(no kernel image\)")],
)
def test_kernels_that_fail_or_round_wrongly_are_found_before_a_model_is_loaded(monkeypatch, made, line):
    monkeypatch.setattr(precisions, "BNB", {"bnb-nf4": made})
    with pytest.raises(ModelError, match=f"BASE_PRECISION=bnb-nf4: .*{line}"):
        load_model(spec_of("/no/such/folder", base_precision="bnb-nf4"))
