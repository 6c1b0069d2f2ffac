"""An adapter of higher rank than the model's LoRA: part in the factors, part in the base weights, and of what was there
before no trace.
"""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import PeftModel
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.pytorch_utils import Conv1D

from fccl.adapters.adapter import Adapter
from fccl.adapters.ranks import of_rank, pairs, rank_of, with_frozen
from fccl.aggregation.rules import aggregation
from fccl.contribution.reported import ContributionRule
from fccl.data.examples import PreferencePair, SftExample
from fccl.data.shards import ClientShard
from fccl.errors import AdapterError
from fccl.federation.rounds import Federation
from fccl.federation.state import FederationState
from fccl.model import frozen_directions
from fccl.model.export import save_merged, save_peft
from fccl.model.language_model import cpu_threads
from fccl.model.loading import Models, load_model
from fccl.model.peft_model import fuse_activations
from fccl.specs import ModelSpec, RoundPlan, TrainSpec
from fccl.training.learner import GenericLearner
from fccl.transports.in_process import InProcessTransport
from tests.examples import few

RANK, ALPHA = 3, 5.0  # alpha / r is no number that ends


@pytest.fixture(scope="module")
def models(tiny_model, tiny_model_path, tmp_path_factory):
    """GPT-2 of `Conv1D` and Llama of `Linear`, each loaded once."""
    folder = tmp_path_factory.mktemp("tiny-llama")
    shape = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    config = LlamaConfig(
        vocab_size=len(tiny_model.tokenizer), max_position_embeddings=128, bos_token_id=0, eos_token_id=0, **shape
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    tiny_model.tokenizer.save_pretrained(folder)
    return {kind: load_model(spec(path)) for kind, path in (("Conv1D", tiny_model_path), ("Linear", folder))}


def spec(path):
    return ModelSpec(name=str(path), lora_r=RANK, lora_alpha=ALPHA, lora_targets="all-linear", max_length=64)


KINDS = pytest.mark.parametrize("kind", ["Conv1D", "Linear"])


def wide(model, rank, seed=1, scale=0.2):
    form, draw = of_rank(model.adapter().form, rank), torch.Generator().manual_seed(seed)
    return Adapter({name: scale * torch.randn(shape, generator=draw) for name, shape in form.shapes.items()})


def bits(model):
    return {name: tensor.clone() for name, tensor in model.base.state_dict().items()}


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.arange(1, 40)[None]).logits


@pytest.fixture(scope="module")
def fresh_bits(models):
    """All weights of a model that was just loaded, with the one adapter that is asked for."""
    known = {}

    def found(kind, rank, seed):
        if (kind, rank, seed) not in known:
            model = load_model(models[kind].spec)
            model.load(wide(model, rank, seed))
            known[kind, rank, seed] = bits(model)
        return known[kind, rank, seed]

    return found


@KINDS
@given(
    history=st.lists(st.tuples(st.integers(RANK, RANK + 4), st.integers(1, 2)), max_size=5),
    last=st.tuples(st.integers(RANK, RANK + 4), st.just(3)),
)
@settings(max_examples=few(15), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_was_loaded_before_leaves_no_trace(models, fresh_bits, kind, history, last):
    model = models[kind]
    for rank, seed in history:
        model.load(wide(model, rank, seed))
    model.load(wide(model, *last))
    expected = fresh_bits(kind, *last)
    for name, tensor in bits(model).items():
        assert torch.equal(tensor, expected[name]), name


def require_the_base(model):
    """The base model's weights and logits, to the bit."""
    plain = AutoModelForCausalLM.from_pretrained(model.spec.name, dtype=torch.float32).eval()
    fuse_activations(plain)
    found = {name.replace(".base_layer", ""): tensor for name, tensor in model.base.state_dict().items()}
    for name, tensor in plain.state_dict().items():
        assert torch.equal(found[name], tensor), name
    assert torch.equal(logits(model.model), logits(plain))


@KINDS
def test_a_narrow_adapter_brings_the_base_back(models, kind):
    model = models[kind]
    model.load(wide(model, RANK + 5))
    model.load(model.initial_adapter(0))
    require_the_base(model)


@KINDS
@pytest.mark.parametrize("rank", [RANK, RANK + 1, 20])
def test_peft_reads_the_export_and_computes_the_same(models, kind, rank, tmp_path):
    model = models[kind]
    adapter = wide(model, rank)
    model.load(adapter)
    save_peft(model, adapter, tmp_path / "adapter", "# card\n")
    base = AutoModelForCausalLM.from_pretrained(model.spec.name, dtype=torch.float32)
    theirs = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    assert theirs.peft_config["default"].r == rank
    assert theirs.peft_config["default"].lora_alpha / rank == pytest.approx(ALPHA / RANK, rel=1e-15)
    torch.testing.assert_close(logits(theirs), logits(model.model), rtol=1e-5, atol=1e-5)
    assert (model.model.peft_config["default"].r, model.model.peft_config["default"].lora_alpha) == (RANK, ALPHA)


@KINDS
def test_the_merged_export_is_a_plain_model(models, kind, tmp_path):
    model = load_model(models[kind].spec)
    adapter = wide(model, RANK + 4)
    model.load(adapter)
    expected = logits(model.model)
    save_merged(model, adapter, tmp_path / "merged", "# card\n")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
    torch.testing.assert_close(logits(plain), expected, rtol=1e-4, atol=1e-5)


def test_the_number_of_threads_changes_no_bit(models):
    found = []
    for threads in (1, 2):
        model = load_model(models["Linear"].spec)
        with cpu_threads(threads):
            model.load(wide(model, 30))
        found.append(bits(model))
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


def test_usual_runs_pay_nothing_and_the_same_rest_is_folded_once(models, monkeypatch):
    model, folded = load_model(models["Conv1D"].spec), []
    monkeypatch.setattr(frozen_directions, "pairs", lambda form: folded.append(1) or pairs(form))
    for seed in range(3):
        model.load(wide(model, RANK, seed))
    assert not model.frozen.plain
    assert not folded
    one = wide(model, RANK + 4)
    model.load(one)
    trained = wide(model, RANK, 2)
    model.load(with_frozen(trained, one))
    assert len(folded) == 1, "another first part, the same rest"
    assert model.adapter().sha256 == trained.sha256


def test_a_load_that_broke_in_the_middle_is_made_up_for(models, fresh_bits, monkeypatch):
    model = load_model(models["Conv1D"].spec)

    def breaks(form):
        yield from pairs(form)[:3]
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(frozen_directions, "pairs", breaks)
        with pytest.raises(MemoryError):
            model.load(wide(model, RANK + 2, 1))
    model.load(model.initial_adapter(0))
    require_the_base(model)
    model.load(wide(model, RANK + 2, 1))
    expected = fresh_bits("Conv1D", RANK + 2, 1)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in bits(model).items())


def test_what_does_not_fit_is_refused_and_changes_nothing(models):
    model = models["Conv1D"]
    model.load(wide(model, RANK + 1))
    before, name = bits(model), next(iter(model.factors))
    for spoilt in (
        wide(model, RANK - 1),
        Adapter(dict(wide(model, RANK + 3).tensors) | {name: torch.ones(RANK + 2, 32)}),
        Adapter({"w": torch.ones(3)}),
    ):
        with pytest.raises(AdapterError):
            model.load(spoilt)
    assert all(torch.equal(tensor, before[name]) for name, tensor in bits(model).items())


# --- federations of real models

SHARDS = {
    number: ClientShard(
        number,
        tuple(SftExample(f"What is {n} for {number}?", f"It is {n + number}.") for n in range(4 + 2 * number)),
        tuple(PreferencePair(f"What is {n}?", f"It is {n}.", "Go away.") for n in range(4)),
    )
    for number in range(3)
}
TRAIN = TrainSpec(
    epochs=2,
    learning_rate=2e-2,
    batch_size=4,
    warmup=0,
    max_grad_norm=1,
    schedule="constant",
    threads=1,
    lower_ranks=True,
)


def in_effect(model):
    """What each target module multiplies by, with all that is folded in and the factors too:

    (fan_out, fan_in) in float64.
    """
    found, scale = {}, model.spec.lora_alpha / model.spec.lora_r
    for pair in pairs(model.adapter().form):
        layer = model.model.get_submodule(pair.a.partition(".lora_A.")[0]).base_layer
        weight = layer.weight.detach().double()
        product = model.factors[pair.b].detach().double() @ model.factors[pair.a].detach().double()
        found[pair.a] = (weight.T if isinstance(layer, Conv1D) else weight) + scale * product
    return found


class Watched(GenericLearner):
    """Keeps what every client's model multiplies by after its training."""

    def fit(self, task, shard, on_status):
        update = super().fit(task, shard, on_status)
        self.seen[shard.client_id] = in_effect(self.models.of(task.model.of_rank(self.rank(task, shard.client_id))))
        return update


@KINDS
@pytest.mark.parametrize("ranks", [(), (3, 1, 2)])
def testrounds_of_a_real_federation_are_the_dense_mean_of_the_clients_models(models, kind, ranks):
    """SFT and VA rounds, weighted, by ranks alike and different: the next global model's weights are sum w_i of the
    clients' weights.
    """
    model = models[kind]
    learner = Watched(Models.holding(model), ranks)
    learner.seen = {}
    plan = RoundPlan(fed_rounds=2, num_clients=3, clients_per_round=3, seed=3)
    fed = Federation(
        "run",
        plan,
        model.spec,
        {"sft": TRAIN, "va": TRAIN},
        ContributionRule(mode="fedavg"),
        aggregation("fedavg", "exact", RANK),
    )
    state = FederationState(0, model.initial_adapter(5))
    widths = []
    for result in fed.run(state, InProcessTransport(learner, SHARDS.__getitem__)):
        model.load(result.state.adapter)
        for name, weight in in_effect(model).items():
            mean = sum(w * learner.seen[client][name] for client, w in enumerate(result.record.weights))
            torch.testing.assert_close(weight, mean, rtol=0, atol=2e-6)
        assert result.record.excluded == ()
        widths.append(rank_of(result.state.adapter.form))
    assert widths[0] == (sum(ranks) or 9)
    assert widths == sorted(widths)
    assert widths[-1] > widths[0]
