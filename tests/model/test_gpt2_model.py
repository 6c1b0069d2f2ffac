"""The written-out engine behind `LanguageModel`: the generic engine on the same weights is the oracle."""

from dataclasses import replace

import pytest
import torch

from fccl.adapters.adapter import Adapter
from fccl.adapters.ranks import of_rank
from fccl.data.examples import PreferencePair, SftExample
from fccl.errors import ModelError
from fccl.model.encoding import encode
from fccl.model.language_model import GENERIC, GPT2
from fccl.model.loading import load_model
from fccl.model.objectives import objective_for
from fccl.specs import ModelSpec, PreferenceSpec

EXAMPLES = [SftExample(f"What is {n}?", "It is " + "and so " * n + "on.") for n in range(5)]
PAIRS = [PreferencePair(f"What is {n}?", "It is " + "and so " * n + "on.", "Go away. " * (5 - n)) for n in range(5)]


def spec_of(path, **changes):
    return ModelSpec(
        **{"name": str(path), "lora_r": 4, "lora_alpha": 8.0, "lora_targets": "all-linear", "max_length": 128} | changes
    )


@pytest.fixture(scope="module")
def engines(tiny_model_path):
    """The same model under both engines, the generic one with padded rows: it shares no packing with the other."""
    return replace(load_model(spec_of(tiny_model_path)), padded=True), load_model(spec_of(tiny_model_path, engine=GPT2))


def random_adapter(form, seed):
    draw = torch.Generator().manual_seed(seed)
    return Adapter({name: 0.2 * torch.randn(shape, generator=draw) for name, shape in form.shapes.items()})


def far(found, expected):
    apart = sum(float((found[name] - expected[name]).square().sum()) for name in expected)
    return (apart / sum(float(part.square().sum()) for part in expected.values())) ** 0.5


@pytest.mark.parametrize("phase", ["sft", "va"])
@pytest.mark.parametrize("rank", [4, 11])
def test_losses_and_gradients_are_the_generic_engines_for_wider_adapters_too(engines, phase, rank):
    generic = engines[0]
    adapter = random_adapter(of_rank(generic.form, rank), seed=rank)
    rows = encode(generic.tokenizer, phase, EXAMPLES if phase == "sft" else PAIRS, 128)
    reference = torch.zeros(len(rows), 2) if phase == "va" else None
    objective = objective_for(phase, rows, reference, PreferenceSpec(beta=0.01))
    found = []
    for model in engines:
        model.load(adapter)
        found.append(model.loss_and_gradient(rows, lambda log_probs: objective.total(range(len(rows)), log_probs)))
    assert found[1].loss == pytest.approx(found[0].loss, rel=1e-5)
    assert far(found[1].gradient, found[0].gradient) < 1e-5


def test_log_probabilities_are_the_generic_engines_and_have_no_gradient(engines):
    generic, gpt2 = engines
    rows = encode(generic.tokenizer, "va", PAIRS, 128)
    for model in engines:
        model.load(random_adapter(model.form, seed=3))
    found = gpt2.response_log_probs(rows)
    assert found.shape == (len(PAIRS), 2)
    assert not found.requires_grad
    assert torch.allclose(found, generic.response_log_probs(rows).double(), rtol=1e-5)


def test_only_the_factors_asked_for_come_back(engines):
    rows = encode(engines[1].tokenizer, "sft", EXAMPLES, 128)
    wanted = [name for name in engines[1].factors if ".lora_B." in name]
    assert list(engines[1].loss_and_gradient(rows, torch.sum, wanted).gradient) == wanted


def test_a_gradient_stays_what_it_was_when_another_is_computed(engines):
    gpt2 = engines[1]
    rows = encode(gpt2.tokenizer, "sft", EXAMPLES, 128)
    gpt2.load(random_adapter(gpt2.form, seed=3))
    first = gpt2.loss_and_gradient(rows[:1], torch.sum).gradient
    before = {name: part.clone() for name, part in first.items()}
    gpt2.loss_and_gradient(rows[1:], torch.sum)
    assert all(torch.equal(before[name], part) for name, part in first.items())


def test_what_an_optimiser_writes_to_the_factors_is_seen_by_both_forms(engines):
    gpt2 = engines[1]
    prompts, rows = [row[0].ids[:5] for row in encode(gpt2.tokenizer, "sft", EXAMPLES, 128)], []
    for seed in (1, 2):
        adapter = random_adapter(gpt2.form, seed)
        with torch.no_grad():
            for name, factor in gpt2.factors.items():
                factor.copy_(3 * adapter.tensors[name])
        engines[0].load(gpt2.adapter())
        rows.append(gpt2.continuations(prompts, 6))
        assert rows[-1] == engines[0].continuations(prompts, 6)
    assert rows[0] != rows[1]


def test_another_architecture_is_refused_by_name_and_auto_takes_the_generic_engine(llama_path):
    with pytest.raises(ModelError, match="ENGINE=gpt2") as error:
        load_model(spec_of(llama_path, engine=GPT2))
    assert "ENGINE=generic" in error.value.hint
    assert load_model(spec_of(llama_path, engine="auto")).engine == GENERIC


def test_auto_takes_the_written_out_engine_for_gpt2(tiny_model_path):
    assert load_model(spec_of(tiny_model_path, lora_targets="c_attn", engine="auto")).engine == GPT2
