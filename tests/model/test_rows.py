"""Rows of which not just the response is learnt, under every engine: against padded rows and transformers' own loss."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from fccl.adapters.adapter import Adapter
from fccl.model.encoding import collate
from fccl.model.language_model import GPT2
from fccl.model.loading import load_model
from fccl.model.packing import pack
from fccl.model.rows import Encoded
from fccl.model.scoring import score_sft
from fccl.specs import ModelSpec

ROWS = (
    Encoded((5, 6, 7, 8, 9, 10), 4, False, learnt=(1, 2, 4, 5)),
    Encoded((5, 6, 7, 8), 2, False),
    Encoded((9, 8, 7, 6, 5), 3, False, learnt=(2, 3)),  # a part of the prompt, not all of the response
)


@st.composite
def rows(draw):
    ids = tuple(draw(st.lists(st.integers(1, 40), min_size=2, max_size=12)))
    shared = draw(st.integers(0, len(ids) - 1))
    places = draw(st.sets(st.integers(1, len(ids) - 1)))
    return Encoded(ids, shared, False, draw(st.sampled_from([None, tuple(sorted(places))])))


def random_adapter(form, seed):
    draw = torch.Generator().manual_seed(seed)
    return Adapter({name: 0.2 * torch.randn(shape, generator=draw) for name, shape in form.shapes.items()})


@given(st.lists(rows(), min_size=1, max_size=4))
def test_a_packed_row_predicts_what_the_mask_of_the_padded_one_says(some):
    packed, mask = pack([(row,) for row in some]), collate(some, 0).response_mask
    for number, row in enumerate(some):
        own = packed.owners == number
        wanted = [place for place in mask[number].nonzero().flatten().tolist() if place]
        assert packed.targets[own].tolist() == [row.ids[place] for place in wanted]
        assert packed.positions[packed.rows[own]].tolist() == [place - 1 for place in wanted]
        assert packed.ids[packed.rows[own]].tolist() == [row.ids[place - 1] for place in wanted]


@pytest.fixture(scope="module")
def spec(tiny_model_path):
    return ModelSpec(name=str(tiny_model_path), lora_r=4, lora_alpha=8.0, lora_targets="all-linear", max_length=128)


def test_loss_and_gradient_are_those_of_padded_rows_under_both_engines(spec):
    generic, gpt2 = load_model(spec), load_model(spec.model_copy(update={"engine": GPT2}))
    adapter, examples, found = random_adapter(generic.form, seed=3), [(row,) for row in ROWS], []
    for model in (replace(generic, padded=True), generic, gpt2):
        model.load(adapter)
        found.append(model.loss_and_gradient(examples, lambda log_probs: -log_probs.sum()))
    for each in found[1:]:
        assert each.loss == pytest.approx(found[0].loss, rel=1e-5)
        for name, gradient in found[0].gradient.items():
            assert torch.allclose(each.gradient[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))


def test_a_score_is_transformers_loss_over_the_tokens_that_count(spec, tiny_model_path):
    model = load_model(spec)
    model.load(model.initial_adapter(seed=0))
    scores = score_sft(model, ROWS, batch_size=2)
    plain = AutoModelForCausalLM.from_pretrained(tiny_model_path, dtype=torch.float32)
    for row, nll, tokens in zip(ROWS, scores.nll, scores.tokens, strict=True):
        labels = torch.tensor([[number if place in row.places else -100 for place, number in enumerate(row.ids)]])
        with torch.no_grad():
            mean = plain(input_ids=torch.tensor([row.ids]), labels=labels).loss.item()
        assert tokens == int((labels != -100).sum())
        assert nll / tokens == pytest.approx(mean, rel=1e-5)
