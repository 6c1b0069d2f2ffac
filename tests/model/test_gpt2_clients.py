"""LoRA of several clients in one batch, against each client in a model of its own."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.model.gpt2_clients import ClientFactors
from fccl.model.gpt2_model import gpt2_with_lora
from fccl.model.packing import pack
from tests.examples import few
from tests.model.test_gpt2 import SCALE, TARGETS, engine, far, gradients, pair, peft_model, row
from tests.model.test_gpt2 import factors as factors_of


def clients_model(model, values):
    """One written-out GPT-2 for clients with these factors."""
    parameters = factors_of(model)
    factors = ClientFactors.of(parameters, len(values))
    for client, own in enumerate(values):
        for name, part in factors.of_client(factors.values, client).items():
            part.copy_(own[name])
    base = model.get_base_model()
    return gpt2_with_lora(base, parameters, lambda a, b: factors.lora(a, b, SCALE), "fp32"), factors


def drawn(model, seed):
    draw = torch.Generator().manual_seed(seed)
    return {
        name: 0.2 * torch.randn(each.shape, generator=draw, dtype=each.dtype)
        for name, each in factors_of(model).items()
    }


def alone(model, values, prompts):
    """Log-probabilities and gradient of one client, whose factors the model has for as long."""
    gpt2, flat = engine(model)
    with torch.no_grad():
        for name, part in factors_of(model).items():
            part.copy_(values[name])
    return gpt2.learn(pack(prompts), torch.cos), gradients(flat)


def together(gpt2, factors, batches):
    """All clients' log-probabilities, in one batch; their gradients are in `factors`."""
    packed = pack([prompt for prompts in batches for prompt in prompts])
    owners = torch.arange(len(batches)).repeat_interleave(torch.tensor([len(prompts) for prompts in batches]))
    packed = replace(packed, foreign=factors.foreign(owners.repeat_interleave(packed.starts.diff())))
    return gpt2.learn(packed, torch.cos)


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_each_client_has_the_gradient_that_it_has_alone(targets, dtype, limit):
    model = peft_model(targets, dtype)
    values = [drawn(model, seed) for seed in range(3)]
    batches = [[(row(3, 5, 1),), pair(30, 60, 40, 3)], [(row(40, 90, 2),)], [pair(1, 1, 2, 5)]]
    gpt2, factors = clients_model(model, values)
    found = together(gpt2, factors, batches)
    expected = [alone(model, own, prompts) for own, prompts in zip(values, batches, strict=True)]
    assert torch.allclose(found, torch.cat([log_probs for log_probs, _ in expected]), atol=10 * limit)
    for client, (_, gradient) in enumerate(expected):
        assert far(factors.of_client(factors.gradient, client), gradient) < limit


@settings(max_examples=few(25), deadline=None)
@given(lengths=st.lists(st.lists(st.integers(1, 9), max_size=3), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_a_client_without_tokens_has_no_gradient_and_does_not_move_the_others(lengths, seed):
    if not any(lengths):
        return
    model = peft_model("all")
    values = [drawn(model, seed + client) for client in range(len(lengths))]
    batches = [[(row(2, each, seed + each),) for each in own] for own in lengths]
    gpt2, factors = clients_model(model, values)
    together(gpt2, factors, batches)
    for client, prompts in enumerate(batches):
        mine = factors.of_client(factors.gradient, client)
        if prompts:
            assert far(mine, alone(model, values[client], prompts)[1]) < 1e-12
        else:
            assert all(torch.count_nonzero(part) == 0 for part in mine.values())


def test_low_rank_numbers_that_overflow_stay_with_their_client():
    model = peft_model("all")
    huge = {name: part * 1e308 * 100 if ".lora_A." in name else part for name, part in drawn(model, 2).items()}
    values = [drawn(model, 1), huge]
    gpt2, factors = clients_model(model, values)
    found = together(gpt2, factors, [[(row(3, 5, 1),)], []])
    assert torch.allclose(found, alone(model, values[0], [(row(3, 5, 1),)])[0], atol=1e-12)


def test_every_number_of_a_vector_has_its_client():
    factors = ClientFactors.of(factors_of(peft_model("c_attn")), 3)
    for client in range(3):
        marked = factors.of_client(factors.owners.clone(), client)
        assert {int(number) for part in marked.values() for number in part.unique()} == {client}
        assert sum(part.numel() for part in marked.values()) == len(factors.values) // 3


def test_factors_are_those_that_they_were_made_of():
    parameters = factors_of(peft_model("all"))
    factors = ClientFactors.of(parameters, 2)
    for client in range(2):
        for name, part in factors.of_client(factors.values, client).items():
            assert torch.equal(part, parameters[name])
