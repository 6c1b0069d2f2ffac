"""Gradients by example in the written-out GPT-2, against autograd's of each example alone, and Opacus' formula."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.model.clipping import clipped
from fccl.model.encoding import Encoded
from fccl.model.gpt2_examples import by_example
from fccl.model.packing import pack
from tests.examples import few
from tests.model.test_gpt2 import alone, engine, factors, pair, peft_model, row

EXACT = 1e-10


def mine(model, prompts):
    """The gradients of each example, (E, P): the loss is the sum of log p, each weighed by its place."""
    gpt2, flat = engine(model)
    packed = pack(prompts)
    gradients = torch.zeros(len(prompts), len(flat.values), dtype=flat.values.dtype)
    by_example(gpt2, gradients, packed).learn(packed, lambda found: torch.cos(3 * found))
    assert not flat.gradient.any(), "the batch's own gradient is left alone"
    return gradients


def autograds(model, prompts):
    rows = []
    ordered = [parameter for _, parameter in sorted(factors(model).items())]
    for responses in prompts:
        found = torch.cat([alone(model, encoded) for encoded in responses])
        parts = torch.autograd.grad(found, ordered, torch.cos(3 * found.detach()))
        rows.append(torch.cat([part.reshape(-1) for part in parts]))
    return torch.stack(rows)


def off(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("targets", ["c_attn", "all", "mlp"])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, EXACT), (torch.float32, 1e-5)])
def test_every_examples_gradient_is_autograds_of_that_example_alone(targets, dtype, limit):
    prompts = [(row(3, 5, 1),), (row(40, 100, 2),), pair(30, 60, 40, 3), (row(0, 4, 7),)]
    singles = [each for each in prompts if len(each) == 1]
    model = peft_model(targets, dtype)
    for batch in (singles, [prompts[2], pair(1, 1, 2, 5)]):
        found, expected = mine(model, batch), autograds(model, batch)
        for one, other in zip(found, expected, strict=True):
            assert off(one, other) < limit


lengths = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))


@settings(max_examples=few(25), deadline=None)
@given(sizes=st.lists(lengths, min_size=1, max_size=5), pairs=st.booleans(), seed=st.integers(0, 99))
def test_batches_of_any_lengths_have_the_gradients_of_their_examples(sizes, pairs, seed):
    model = peft_model("all")
    prompts = [
        pair(*size, seed + 2 * index) if pairs else (row(*size[:2], seed + index),) for index, size in enumerate(sizes)
    ]
    assert off(mine(model, prompts), autograds(model, prompts)) < EXACT


def test_with_lora_on_the_top_layer_alone_the_gradients_are_its_own():
    model = peft_model("all", layers=[2])
    prompts = [(row(3, 5, 1),), (row(7, 2, 2),)]
    assert off(mine(model, prompts), autograds(model, prompts)) < EXACT


def test_an_example_without_a_response_has_gradient_zero_and_leaves_the_others_alone():
    """An empty response, and a conversation of which no turn is learnt."""
    model = peft_model("all")
    empty, unlearnt = Encoded((4, 5, 6), 3, truncated=True), Encoded((4, 5, 6), 1, truncated=False, learnt=())
    prompts = [(empty,), (row(3, 5, 1),), (unlearnt,)]
    found = mine(model, prompts)
    assert not found[0].any()
    assert not found[2].any()
    assert off(found[1], autograds(model, [prompts[1]])[0]) < EXACT
    assert not mine(model, [(empty,)]).any()
    total = clipped(found, 1e-3)
    assert float(total.norm()) == pytest.approx(1e-3), "the one that has a gradient, clipped"


def opacus(model, prompts):
    """Opacus' sum of clipped gradients: of each linear layer the backprops times the activations, by sample, over
    padded rows; then factors of C / (norm + 1e-6), at most 1.
    """
    caught, hooks = {}, []
    for name, module in model.named_modules():
        if name.endswith(".default") and ("lora_A" in name or "lora_B" in name):
            hooks.append(module.register_forward_hook(_keeping(caught, name)))
    longest = max(len(responses[0].ids) for responses in prompts)
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    for number, (encoded,) in enumerate(prompts):
        ids[number, : len(encoded.ids)] = torch.tensor(encoded.ids)
    log_p = torch.log_softmax(model(input_ids=ids).logits, dim=-1)
    losses = []
    for number, (encoded,) in enumerate(prompts):
        targets = torch.tensor(encoded.ids[encoded.prompt_length :])
        at = log_p[number, encoded.prompt_length - 1 : len(encoded.ids) - 1]
        losses.append(torch.sin(3 * at.gather(1, targets.unsqueeze(1))).sum() / 3)  # whose slope is cos(3 log p)
    names = sorted(caught)
    backprops = torch.autograd.grad(sum(losses), [caught[name][1] for name in names])
    for hook in hooks:
        hook.remove()
    samples = {
        f"{name}.weight": torch.einsum("n...i,n...j->nij", backprop, caught[name][0].detach())
        for name, backprop in zip(names, backprops, strict=True)
    }
    flat = torch.cat([samples[name].flatten(1) for name in sorted(samples)], dim=1)  # (E, P)
    return flat, flat.norm(dim=1)


def _keeping(caught, name):
    def keep(module, inputs, output):
        caught[name] = inputs[0], output

    return keep


def test_the_sum_of_clipped_gradients_is_opacus():
    prompts = [(row(3, 5, 1),), (row(20, 11, 2),), (row(7, 2, 3),), (row(1, 1, 4),)]
    model = peft_model("all")
    flat, norms = opacus(model, prompts)
    assert off(mine(model, prompts), flat) < EXACT
    clip = float(norms.median())  # some are clipped, some are not
    shares = (clip / (norms + 1e-6)).clamp(max=1.0)
    assert 0 < int((shares < 1).sum()) < len(prompts)
    assert off(clipped(mine(model, prompts), clip), (shares.unsqueeze(1) * flat).sum(0)) < 1e-6
