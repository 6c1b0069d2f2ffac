"""Against dense products in numpy, and against the model itself."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from transformers import AutoModelForCausalLM

from fccl.adapters.adapter import Adapter
from fccl.adapters.ranks import leading, pairs, trailing
from fccl.aggregation import lora_products
from fccl.aggregation.lora_mean import LoraMean, product_error, require_frozen_a
from fccl.aggregation.lora_products import ProductSum
from fccl.aggregation.mean import weighted_mean
from fccl.aggregation.protocol import Parts
from fccl.aggregation.rules import aggregation
from fccl.aggregation.state import ServerState
from fccl.errors import AdapterError, FederationError, SettingsError, UpdateRejected
from tests.examples import few

# Names and (fan_in, fan_out) as PEFT has them for GPT-2's Conv1D and for Llama's Linear.
SHAPES = {
    "base_model.model.transformer.h.0.attn.c_attn": (12, 20),
    "base_model.model.transformer.h.0.mlp.c_proj": (24, 10),
    "base_model.model.model.layers.0.self_attn.q_proj": (9, 9),
}


def factors(seed, rank, size=1.0):
    draw = np.random.default_rng(seed)
    tensors = {}
    for module, (fan_in, fan_out) in SHAPES.items():
        tensors[f"{module}.lora_A.weight"] = draw.normal(scale=size, size=(rank, fan_in))
        tensors[f"{module}.lora_B.weight"] = draw.normal(scale=size, size=(fan_out, rank))
    return Adapter({name: torch.from_numpy(value.astype(np.float32)) for name, value in tensors.items()})


def dense(adapter):
    """B A of every module, (fan_out, fan_in) in float64."""
    return {
        name.replace(".lora_A.weight", ""): adapter.tensors[name.replace("lora_A", "lora_B")].numpy().astype(np.float64)
        @ tensor.numpy()
        for name, tensor in adapter.tensors.items()
        if "lora_A" in name
    }


def dense_mean(weights, updates):
    products = [dense(update) for update in updates]
    return {
        module: sum(weight * product[module] for weight, product in zip(weights, products, strict=True))
        for module in products[0]
    }


def distance(one, other):
    return math.sqrt(sum(float(np.square(one[module] - other[module]).sum()) for module in one))


def norm(products):
    return math.sqrt(sum(float(np.square(product).sum()) for product in products.values()))


def weights_of(seed, count):
    return tuple(np.random.default_rng(seed).dirichlet(np.ones(count)))


def mean(name, rank, before, weights, updates):
    return LoraMean(name=name, lora_r=rank).aggregate(before, Parts(weights, updates), ServerState()).adapter


@given(seed=st.integers(0, 9999), count=st.integers(1, 9), rank=st.integers(1, 4))
@settings(max_examples=few(40), deadline=None)
def test_error_of_the_mean_of_factors_is_that_of_dense_products(seed, count, rank):
    updates, weights = [factors(seed + i, rank) for i in range(count)], weights_of(seed, count)
    after, exact = weighted_mean(zip(weights, updates, strict=True)), dense_mean(weights, updates)
    expected = distance(exact, dense(after)) / norm(exact)
    assert product_error(updates[0], Parts(weights, updates), after) == pytest.approx(expected, rel=1e-9, abs=1e-7)


@given(seed=st.integers(0, 9999), count=st.integers(2, 6))
@settings(max_examples=few(20), deadline=None)
def test_with_one_a_for_all_the_mean_of_factors_is_exact(seed, count):
    shared, weights = factors(seed, 3), weights_of(seed, count)
    updates = [
        Adapter(
            {
                name: shared.tensors[name] if "lora_A" in name else tensor
                for name, tensor in factors(seed + 1 + i, 3).tensors.items()
            }
        )
        for i in range(count)
    ]
    after = weighted_mean(zip(weights, updates, strict=True))
    assert product_error(shared, Parts(weights, updates), after) < 1e-6
    for name, tensor in after.tensors.items():
        if "lora_A" in name:
            assert torch.equal(tensor, shared.tensors[name])


@given(seed=st.integers(0, 9999), count=st.integers(1, 9), rank=st.integers(1, 5))
@settings(max_examples=few(40), deadline=None)
def test_svd_is_the_best_of_its_rank(seed, count, rank):
    """Its error is the norm of the singular values that are left out (Eckart & Young 1936), and no other adapter does
    better.
    """
    updates, weights = [factors(seed + i, rank) for i in range(count)], weights_of(seed, count)
    after, exact = mean("svd", rank, updates[0], weights, updates), dense_mean(weights, updates)
    assert after.form.shapes == updates[0].form.shapes
    left_out = {module: np.linalg.svd(product, compute_uv=False)[rank:] for module, product in exact.items()}
    assert distance(exact, dense(after)) == pytest.approx(norm(left_out), rel=1e-5, abs=1e-5 * norm(exact))
    rivals = [
        weighted_mean(zip(weights, updates, strict=True)),
        updates[-1],
        Adapter({n: t * 1.01 for n, t in after.tensors.items()}),
    ]
    assert all(distance(exact, dense(after)) <= distance(exact, dense(rival)) * (1 + 1e-5) + 1e-5 for rival in rivals)


@given(seed=st.integers(0, 9999), count=st.integers(1, 9), rank=st.integers(1, 3))
@settings(max_examples=few(40), deadline=None)
def test_exact_is_the_mean_itself_and_begins_with_svd(seed, count, rank):
    updates, weights = [factors(seed + i, rank) for i in range(count)], weights_of(seed, count)
    after, exact = mean("exact", rank, updates[0], weights, updates), dense_mean(weights, updates)
    assert distance(exact, dense(after)) <= 1e-6 * norm(exact)
    assert product_error(updates[0], Parts(weights, updates), after) < 1e-6
    best = mean("svd", rank, updates[0], weights, updates)
    assert leading(after, rank).sha256 == best.sha256
    widths = {pair.rank for pair in pairs(after.form)}
    assert widths == {
        max(rank, min(rank * count, 12))
    }  # of the widest module: at most min(fan_in, fan_out), which is 12


def test_directions_stand_in_the_order_of_their_strength_with_signs_that_are_fixed():
    updates = [factors(i, 3) for i in range(4)]
    after = mean("exact", 3, updates[0], (0.25,) * 4, updates)
    for pair in pairs(after.form):
        b, a = after.tensors[pair.b].numpy(), after.tensors[pair.a].numpy()
        strengths = np.linalg.norm(b, axis=0)
        assert (np.diff(strengths) <= 1e-6).all()
        alive = strengths > 0
        assert (b[np.abs(b).argmax(axis=0), range(b.shape[1])][alive] > 0).all()
        np.testing.assert_allclose(a[alive] @ a[alive].T, np.eye(alive.sum()), atol=1e-5)


@pytest.mark.parametrize("count", [1, 3])
def test_the_same_bits_whatever_the_threads(count):
    """At this size QR and SVD do give other bits on two threads than on one, when they are let.

    One update stays side by side, three do not.
    """
    draw, threads, found = torch.Generator().manual_seed(0), torch.get_num_threads(), []
    terms = [(torch.randn(160, 80, generator=draw), torch.randn(80, 200, generator=draw)) for _ in range(count)]
    try:
        for cores in (1, 2):
            torch.set_num_threads(cores)
            total = ProductSum(160, 200)
            for b, a in terms:
                total.add(1 / 3, b, a)
            found.append((*total.decomposed(), torch.tensor(total.norm())))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@given(seed=st.integers(0, 9999), wide=st.integers(1, 7), rank=st.integers(1, 4))
@settings(max_examples=few(30), deadline=None)
def test_what_a_client_does_not_train_counts_as_unchanged(seed, wide, rank):
    """Clients of several ranks under a wider adapter:

    P is the mean of what each would have meant with all of its directions.
    """
    rank = min(rank, wide)
    before, ranks, weights = factors(seed, wide), [max(1, rank - i) for i in range(4)], weights_of(seed, 4)
    updates = [factors(seed + 1 + i, own) for i, own in enumerate(ranks)]
    meant = []
    for own, update in zip(ranks, updates, strict=True):
        frozen = trailing(before, own)
        meant.append(
            {module: product + (dense(frozen)[module] if frozen else 0) for module, product in dense(update).items()}
        )
    exact = {
        module: sum(weight * product[module] for weight, product in zip(weights, meant, strict=True))
        for module in meant[0]
    }
    after = mean("exact", rank, before, weights, updates)
    assert distance(exact, dense(after)) <= 1e-6 * norm(exact)
    assert product_error(before, Parts(weights, updates), after) < 1e-6
    assert product_error(before, Parts(weights, updates), before) == pytest.approx(
        distance(exact, dense(before)) / norm(exact), rel=1e-6
    )


@given(seed=st.integers(0, 99), rank=st.integers(1, 6))
@settings(max_examples=few(10), deadline=None)
def test_first_and_rest_are_the_whole(seed, rank):
    adapter = factors(seed, 4)
    head, tail = dense(leading(adapter, rank)), trailing(adapter, rank)
    assert (tail is None) == (rank >= 4)
    whole = {module: product + (dense(tail)[module] if tail else 0) for module, product in head.items()}
    assert distance(whole, dense(adapter)) <= 1e-5 * norm(dense(adapter))


def test_a_direction_without_strength_can_still_be_learnt():
    """Before any training B is zero; the mean of clients that did nothing must not be a point where neither factor has
    a gradient.
    """
    still = Adapter({name: tensor * ("lora_A" in name) for name, tensor in factors(0, 3).tensors.items()})
    for name in ("svd", "exact"):
        after = mean(name, 3, still, (0.5, 0.5), [still, still])
        assert norm(dense(after)) == 0
        assert all(float(after.tensors[pair.a].norm(dim=1).min()) > 0.5 for pair in pairs(after.form))


def test_a_rank_wider_than_the_module_keeps_its_width():
    """q_proj has 9 directions and no more: the others stay as they were, with B zero."""
    updates = [factors(i, 11) for i in range(2)]
    after, exact = mean("svd", 11, updates[0], (0.5, 0.5), updates), dense_mean((0.5, 0.5), updates)
    assert after.form.shapes == updates[0].form.shapes
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    np.testing.assert_allclose(dense(after)[name], exact[name], atol=1e-5)
    assert not after.tensors[f"{name}.lora_B.weight"][:, 9:].any()
    assert torch.equal(after.tensors[f"{name}.lora_A.weight"][9:], updates[0].tensors[f"{name}.lora_A.weight"][9:])


@given(seed=st.integers(0, 999), count=st.integers(1, 40))
@settings(max_examples=few(20), deadline=None)
def test_the_sum_is_the_same_side_by_side_and_multiplied_out(seed, count):
    """With many factors it becomes the dense matrix; nothing of that can be seen."""
    draw = np.random.default_rng(seed)
    terms = [
        (draw.normal(), torch.from_numpy(draw.normal(size=(7, 2))), torch.from_numpy(draw.normal(size=(2, 5))))
        for _ in range(count)
    ]
    total, expected = ProductSum(7, 5), np.zeros((7, 5))
    for weight, b, a in terms:
        total.add(weight, b, a)
        expected += weight * b.numpy() @ a.numpy()
    left, values, right = total.decomposed()
    np.testing.assert_allclose((left * values @ right).numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(values, np.linalg.svd(expected, compute_uv=False)[: len(values)], atol=1e-12)
    assert total.norm() == pytest.approx(np.linalg.norm(expected), abs=1e-12)
    b, a = torch.from_numpy(draw.normal(size=(7, 2))), torch.from_numpy(draw.normal(size=(2, 5)))
    norm, distance = total.norm_and_distance(b, a)
    assert norm == pytest.approx(np.linalg.norm(expected), rel=1e-9, abs=1e-12)
    assert distance == pytest.approx(np.linalg.norm(expected - b.numpy() @ a.numpy()), rel=1e-9)


def test_more_passes_change_nothing(monkeypatch):
    updates, weights = [factors(i, 3) for i in range(5)], weights_of(0, 5)
    one = mean("exact", 3, updates[0], weights, updates)
    monkeypatch.setattr(lora_products, "PASS_BYTES", 1)
    loads = []
    monkeypatch.setattr(Adapter, "load", lambda self: loads.append(1) or self)
    assert mean("exact", 3, updates[0], weights, updates).sha256 == one.sha256
    assert len(loads) == 5 * len(SHAPES)


def test_the_error_is_none_where_it_means_nothing():
    plain = Adapter({"w": torch.ones(3)})
    assert product_error(plain, Parts((1.0,), [plain]), plain) is None
    zero = Adapter({name: tensor * 0 for name, tensor in factors(0, 2).tensors.items()})
    assert product_error(zero, Parts((1.0,), [zero]), zero) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda tensors: tensors | {"extra": torch.ones(2)},
        lambda tensors: {name: tensor for name, tensor in tensors.items() if "q_proj" not in name},
        lambda tensors: {name: tensor[:1] if "q_proj.lora_A" in name else tensor for name, tensor in tensors.items()},
        lambda tensors: {
            name: tensor[..., :-1].clone() if "c_attn.lora_A" in name else tensor for name, tensor in tensors.items()
        },
        lambda tensors: dict(factors(0, 3).tensors),
        lambda tensors: {"w": torch.ones(2)},
    ],
    ids=["more", "less", "ranks that differ", "another width", "a higher rank", "no factors"],
)
def test_an_update_that_does_not_fit_is_refused(spoil):
    good = factors(0, 2)
    for name in ("svd", "exact"):
        with pytest.raises(AdapterError):
            mean(name, 2, good, (0.5, 0.5), [good, Adapter(spoil(dict(good.tensors)))])


def test_an_adapter_that_is_none_of_lora_is_refused():
    plain = Adapter({"w": torch.ones(3)})
    with pytest.raises(AdapterError, match="more than pairs"):
        mean("svd", 2, plain, (1.0,), [plain])


def test_beyond_float32_is_an_error():
    huge = factors(0, 2, size=1e30)
    with pytest.raises(FederationError, match="beyond float32"):
        mean("svd", 2, huge, (1.0,), [huge])


def test_another_a_is_refused_where_a_is_frozen():
    given_, moved = factors(0, 2), factors(1, 2)
    require_frozen_a(
        given_,
        Adapter({name: given_.tensors[name] if "lora_A" in name else moved.tensors[name] for name in given_.tensors}),
    )
    with pytest.raises(UpdateRejected, match=r"another .*lora_A"):
        require_frozen_a(given_, moved)


def test_goes_with_the_rules_that_only_weigh():
    honest = [
        Adapter(
            {name: tensor + 0.01 * factors(9 + i, 2).tensors[name] for name, tensor in factors(0, 2).tensors.items()}
        )
        for i in range(5)
    ]
    liar = Adapter({name: -10 * tensor for name, tensor in factors(0, 2).tensors.items()})
    rule = aggregation("multi_krum", "svd", 2, max_bad_clients=1)
    assert not rule.uses_weights
    result = rule.aggregate(honest[0], Parts((1 / 6,) * 6, [*honest, liar]), ServerState())
    assert result.weights == (0.2,) * 5 + (0.0,)
    assert result.adapter.sha256 == mean("svd", 2, honest[0], (0.2,) * 5, honest).sha256
    for name in ("median", "fedadam", "scaffold", "norm_clipping"):
        with pytest.raises(SettingsError, match=f"LORA_AGGREGATION=exact does not go with AGGREGATION={name}"):
            aggregation(name, "exact", 2)
        assert aggregation(name, "freeze_a", 2).name == name


# --- the model itself


def randomised(model, seed, rank):
    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, parameter in model.factors.items():
        shape = (rank, parameter.shape[1]) if "lora_A" in name else (parameter.shape[0], rank)
        tensors[name] = 0.2 * torch.randn(shape, generator=draw)
    return Adapter(tensors)


def logits_with(path, adapter, scale, targets):
    """Of a plain PEFT model with this adapter, its alpha such that alpha / r is `scale`."""
    rank = next(len(tensor) for name, tensor in adapter.tensors.items() if "lora_A" in name)
    base = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    config = LoraConfig(
        r=rank, lora_alpha=scale * rank, target_modules=targets, fan_in_fan_out=True, task_type="CAUSAL_LM"
    )
    model = get_peft_model(base, config)
    assert not set_peft_model_state_dict(model, dict(adapter.tensors)).unexpected_keys
    return logits_of(model)


def logits_of(model):
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(1, 40)[None]).logits


@pytest.mark.parametrize("name", ["svd", "exact"])
def test_a_real_model_with_all_directions_is_the_model_with_the_dense_mean(tiny_model, tiny_model_path, name):
    """GPT-2 with Conv1D, alpha / r = 2: three clients of rank 4, weighted, against the mean folded into the weights;
    rank 12 holds all of it.
    """
    scale, weights = tiny_model.spec.lora_alpha / tiny_model.spec.lora_r, (0.5, 0.3, 0.2)
    updates = [randomised(tiny_model, seed, 4) for seed in range(3)]
    after = mean(
        name,
        12 if name == "svd" else 4,
        randomised(tiny_model, 9, 12),
        weights,
        [widened(update, 12) for update in updates],
    )
    folded = AutoModelForCausalLM.from_pretrained(tiny_model_path, dtype=torch.float32)
    for module, product in dense_mean(weights, updates).items():
        weight = folded.get_submodule(module.removeprefix("base_model.model.")).weight
        weight.data += torch.from_numpy(scale * product.T).float()  # Conv1D keeps (fan_in, fan_out)
    wanted = logits_of(folded)
    torch.testing.assert_close(
        logits_with(tiny_model_path, after, scale, ["c_attn", "c_proj", "c_fc"]), wanted, atol=1e-4, rtol=1e-4
    )
    plain = logits_with(
        tiny_model_path, weighted_mean(zip(weights, updates, strict=True)), scale, ["c_attn", "c_proj", "c_fc"]
    )
    assert float((plain - wanted).abs().max()) > 0.05  # the mean of factors is another model


def widened(adapter, rank):
    """The same product in more directions."""
    return Adapter(
        {
            name: torch.nn.functional.pad(
                tensor, (0, 0, 0, rank - len(tensor)) if "lora_A" in name else (0, rank - tensor.shape[1])
            )
            for name, tensor in adapter.tensors.items()
        }
    )
