"""LoRA on the top layers alone: what enters them is computed once an example, and changes no bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2LMHeadModel

from fccl.adapters.adapter import Adapter
from fccl.adapters.ranks import of_rank
from fccl.data.examples import PreferencePair, SftExample
from fccl.model.activations import Activations
from fccl.model.encoding import encode
from fccl.model.frozen_layers import FrozenLayers
from fccl.model.gpt2 import Gpt2
from fccl.model.gpt2_model import load_gpt2, written_out
from fccl.model.language_model import GPT2, cpu_threads
from fccl.model.loading import load_model
from fccl.model.packing import pack
from fccl.specs import ModelSpec
from fccl.storage.cache import Cache
from tests.examples import few

EXAMPLES = [SftExample(f"What is {n}?", "It is " + "and so " * n + "on.") for n in range(6)]
PAIRS = [PreferencePair(f"What is {n}?", "It is " + "and so " * n + "on.", "Go away. " * (5 - n)) for n in range(6)]
ROWS = {"sft": EXAMPLES, "va": PAIRS}


def spec_of(path, **changes):
    wanted = {"name": str(path), "lora_r": 4, "lora_alpha": 8.0, "lora_targets": "all-linear", "max_length": 128}
    return ModelSpec(**wanted | {"engine": GPT2, "lora_layers": 1} | changes)


def random_adapter(form, seed=1):
    draw = torch.Generator().manual_seed(seed)
    return Adapter({name: 0.2 * torch.randn(shape, generator=draw) for name, shape in form.shapes.items()})


def loaded(path, activations=None, adapter_rank=4, **changes):
    """The model with LoRA on its upper layer, an adapter in it."""
    model = load_gpt2(spec_of(path, **changes), activations or Activations())
    model.load(random_adapter(of_rank(model.form, adapter_rank)))
    return model


def loss_of(log_probs):
    """A loss that weighs every response otherwise."""
    return (log_probs / 100).sin().sum()


def learnt(model, rows):
    """Loss and gradient of a batch, as bytes."""
    found = model.loss_and_gradient(rows, loss_of)
    return found.loss, {name: part.numpy().tobytes() for name, part in found.gradient.items()}


@pytest.fixture
def computed(monkeypatch):
    """A list with the tokens of every pass through the lower layers."""
    passes, whole = [], Gpt2.entering

    def counted(gpt2, packed):
        passes.append(tuple(packed.ids.tolist()))
        return whole(gpt2, packed)

    monkeypatch.setattr(Gpt2, "entering", counted)
    return passes


@pytest.fixture
def rows(tiny_model):
    return {phase: encode(tiny_model.tokenizer, phase, examples, 128) for phase, examples in ROWS.items()}


@pytest.mark.parametrize("phase", ["sft", "va"])
@pytest.mark.parametrize("rank", [4, 7])
def test_losses_and_gradients_are_the_generic_engines_for_wider_adapters_too(tiny_model_path, rows, phase, rank):
    found = []
    for model in (loaded(tiny_model_path, adapter_rank=rank), load_model(spec_of(tiny_model_path, engine="generic"))):
        model.load(random_adapter(of_rank(model.form, rank)))
        found.append(model.loss_and_gradient(rows[phase], loss_of))
    mine, theirs = found
    assert mine.loss == pytest.approx(theirs.loss, rel=1e-5)
    assert mine.gradient.keys() == theirs.gradient.keys()
    for name, part in theirs.gradient.items():
        assert torch.linalg.norm(mine.gradient[name] - part) <= 2e-5 * torch.linalg.norm(part), name


@pytest.mark.parametrize("phase", ["sft", "va"])
def test_kept_read_and_computed_activations_give_the_same_bits(tiny_model_path, rows, tmp_path, phase):
    cache = Cache(tmp_path / "cache", 10_000_000)
    kept, on_disk = loaded(tiny_model_path), loaded(tiny_model_path, Activations(cache, most_bytes=0))
    results = [learnt(loaded(tiny_model_path, Activations(most_bytes=0)), rows[phase])]
    results += [learnt(model, rows[phase]) for model in (kept, kept, on_disk, on_disk)]
    results.append(learnt(loaded(tiny_model_path, Activations(cache)), rows[phase]))
    assert all(result == results[0] for result in results)
    assert len(list(cache.folder.iterdir())) == len(rows[phase])


@pytest.fixture(scope="module")
def warmed(tiny_model_path):
    """A model, pairs, and what it learns of all of them in one batch."""
    model = loaded(tiny_model_path)
    rows = encode(model.tokenizer, "va", PAIRS, 128)
    return model, rows, learnt(model, rows)


@settings(max_examples=few(30), deadline=None)
@given(first=st.permutations(range(6)), size=st.integers(1, 6))
def test_the_batch_in_which_an_example_came_first_changes_no_bit(warmed, first, size):
    model, rows, expected = warmed
    fresh = written_out(model, Activations())
    for start in range(0, 6, size):
        fresh.response_log_probs([rows[index] for index in first[start : start + size]])
    assert learnt(fresh, rows) == expected


def test_an_example_goes_through_the_lower_layers_once_whatever_is_computed_of_it(tiny_model_path, rows, computed):
    model = loaded(tiny_model_path)
    for seed in range(3):
        model.load(random_adapter(of_rank(model.form, 4 + seed), seed))
        model.response_log_probs(rows["sft"][:2])
        learnt(model, rows["sft"])
    assert len(computed) == len(set(computed)) == len(EXAMPLES)


def test_models_of_other_ranks_share_what_is_kept_and_models_of_other_weights_do_not(
    tiny_model_path, rows, tmp_path, computed
):
    other = tmp_path / "other"
    changed = GPT2LMHeadModel.from_pretrained(tiny_model_path)
    with torch.no_grad():
        changed.transformer.h[0].mlp.c_fc.bias[0] += 1
    changed.save_pretrained(other)
    load_model(spec_of(tiny_model_path)).tokenizer.save_pretrained(other)
    kept, count = Activations(), len(EXAMPLES)
    learnt(loaded(tiny_model_path, kept), rows["sft"])
    learnt(loaded(tiny_model_path, kept, lora_r=2, lora_alpha=4.0), rows["sft"])
    assert len(computed) == count
    assert learnt(loaded(other, kept), rows["sft"]) == learnt(loaded(other), rows["sft"])
    assert len(computed) == 3 * count, "one more for each"


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_another_precision_of_the_same_weights_shares_nothing(tiny_model_path, rows, computed, precision):
    kept = Activations()
    expected = learnt(loaded(tiny_model_path, base_precision=precision), rows["sft"])
    learnt(loaded(tiny_model_path, kept), rows["sft"])
    computed.clear()
    assert learnt(loaded(tiny_model_path, kept, base_precision=precision), rows["sft"]) == expected
    assert len(computed) == len(EXAMPLES)


@pytest.mark.int8
def test_two_ways_to_compute_with_the_same_weights_have_other_keys(tiny_model_path, rows):
    """The machine's arithmetic said to be the same: the classes of the maps are part of a key."""
    kept = Activations()
    for precision in ("fp32", "int8"):
        lower = FrozenLayers(loaded(tiny_model_path, base_precision=precision).written_out, kept)
        found = lower.entering(rows["sft"][:1], {})
        assert torch.equal(found, lower.gpt2.entering(pack(rows["sft"][:1])))


def test_another_number_of_threads_is_another_arithmetic(tiny_model_path, rows, computed):
    model = loaded(tiny_model_path)
    for threads in (1, 2, 1, 2):
        with cpu_threads(threads):
            learnt(model, rows["sft"])
    assert len(computed) == 2 * len(EXAMPLES)


def test_with_lora_on_all_layers_nothing_is_kept(tiny_model_path, rows):
    kept = Activations(most_bytes=10**9)
    for layers in (None, 2):
        learnt(loaded(tiny_model_path, kept, lora_layers=layers), rows["sft"])
    assert kept == Activations(most_bytes=10**9)
