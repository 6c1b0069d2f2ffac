"""Loss and LoRA gradients against TRL's trainers and a plain PEFT model: float32, no dropout, 1e-5 relative."""

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from transformers import AutoModelForCausalLM

from fccl.adapters.adapter import Adapter
from fccl.data.examples import PreferencePair, SftExample
from fccl.model.encoding import collate, encode_pairs, encode_sft
from fccl.model.losses import response_nll
from fccl.model.objectives import objective_for
from fccl.model.preference_losses import PREFERENCE_LOSSES
from fccl.specs import REFERENCE_FREE, PreferenceSpec
from fccl.training.objective import ObjectiveUnderModel, reference_log_probs

EXAMPLES = [
    SftExample("Name a bird.", "It is a sparrow."),
    SftExample("What is it?", "A dog, of course, and a good one."),
    SftExample("Go", "no"),
]
PAIRS = [
    PreferencePair("Name a bird.", "It is a sparrow.", "Who knows."),
    PreferencePair("What is it?", "A dog.", "A dog, of course, and so on, and so on."),
    PreferencePair("Go", "yes", "never again"),
]
BETA, SMOOTHING = 0.3, 0.2
DPO = PreferenceSpec(beta=BETA)


def random_adapter(model, seed):
    """Neither factor is zero, so that every gradient is alive."""
    draw = torch.Generator().manual_seed(seed)
    return Adapter(
        {name: 0.2 * torch.randn(parameter.shape, generator=draw) for name, parameter in model.factors.items()}
    )


@pytest.fixture
def plain_peft(tiny_model, tiny_model_path):
    """The same model built by hand from transformers and PEFT, with one random adapter loaded; ours has it
    loaded too."""

    def build(seed):
        adapter = random_adapter(tiny_model, seed)
        tiny_model.load(adapter)
        base = AutoModelForCausalLM.from_pretrained(tiny_model_path, dtype=torch.float32)
        spec = tiny_model.spec
        config = LoraConfig(
            r=spec.lora_r,
            lora_alpha=spec.lora_alpha,
            target_modules=["c_attn", "c_proj", "c_fc"],
            fan_in_fan_out=True,
            task_type="CAUSAL_LM",
        )
        model = get_peft_model(base, config)
        result = set_peft_model_state_dict(model, dict(adapter.tensors))
        assert not result.unexpected_keys
        return model

    return build


def gradients(model):
    return {name.replace(".default", ""): p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        scale = theirs[name].abs().max()
        assert scale > 0, f"{name} has no gradient: the comparison would be empty"
        assert float((gradient - theirs[name]).abs().max() / scale) < 1e-5, name


def likelihood(model, rows):
    return ObjectiveUnderModel(model, objective_for("sft", [(row,) for row in rows]))


def test_sft_loss_and_gradients_are_those_of_plain_peft(tiny_model, plain_peft):
    theirs = plain_peft(seed=1)
    rows = encode_sft(tiny_model.tokenizer, EXAMPLES, 100)
    ours = likelihood(tiny_model, rows).at(range(len(rows)))
    batch = collate(rows, tiny_model.pad_id)
    labels = batch.input_ids.masked_fill(~batch.response_mask, -100)
    lengths = torch.tensor([len(row.ids) for row in rows])
    attention = (torch.arange(batch.input_ids.shape[1])[None, :] < lengths[:, None]).long()
    expected = theirs(input_ids=batch.input_ids, attention_mask=attention, labels=labels).loss
    assert ours.loss == pytest.approx(expected.item(), rel=1e-5)
    expected.backward()
    assert_same_gradients(ours.gradient, gradients(theirs))


@pytest.mark.filterwarnings("ignore")
def test_sft_loss_and_gradients_are_trls(tiny_model, plain_peft, tmp_path):
    from trl import SFTConfig, SFTTrainer
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    theirs = plain_peft(seed=2)
    rows = encode_sft(tiny_model.tokenizer, EXAMPLES, 100)
    data = [
        {"input_ids": list(row.ids), "labels": [-100] * row.prompt_length + list(row.ids[row.prompt_length :])}
        for row in rows
    ]
    arguments = SFTConfig(
        str(tmp_path), report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False, max_length=100
    )
    trainer = SFTTrainer(
        theirs, args=arguments, train_dataset=Dataset.from_list(data), processing_class=tiny_model.tokenizer
    )
    batch = DataCollatorForLanguageModeling(pad_token_id=tiny_model.pad_id)(data)
    theirs.zero_grad(set_to_none=True)
    expected = trainer.compute_loss(theirs, batch)
    expected.backward()
    ours = likelihood(tiny_model, rows).at(range(len(rows)))
    assert ours.loss == pytest.approx(expected.item(), rel=1e-5)
    assert_same_gradients(ours.gradient, gradients(theirs))


@pytest.mark.filterwarnings("ignore")
def test_preference_losses_and_their_gradients_are_trls(tiny_model, plain_peft, tmp_path):
    """Every loss that takes a reference; those without one are in tests/model/test_preference_losses.py."""
    from trl import DPOConfig, DPOTrainer
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    reference = random_adapter(tiny_model, seed=4)
    reference_model = plain_peft(seed=4).merge_and_unload()
    theirs = plain_peft(seed=3)
    pairs = encode_pairs(tiny_model.tokenizer, PAIRS, 100)
    arguments = DPOConfig(
        str(tmp_path),
        loss_type="sigmoid",
        beta=BETA,
        label_smoothing=SMOOTHING,
        report_to="none",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        max_length=100,
    )
    data = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])
    trainer = DPOTrainer(
        theirs, ref_model=reference_model, args=arguments, train_dataset=data, processing_class=tiny_model.tokenizer
    )
    rows = [
        {
            "prompt_ids": list(c.ids[: c.prompt_length]),
            "chosen_ids": list(c.ids[c.prompt_length :]),
            "rejected_ids": list(r.ids[r.prompt_length :]),
        }
        for c, r in pairs
    ]
    batch = DataCollatorForPreference(pad_token_id=tiny_model.pad_id)(rows)
    reference_logs = reference_log_probs(tiny_model, reference, pairs, batch_size=2)
    tiny_model.load(random_adapter(tiny_model, seed=3))
    for kind in sorted(set(PREFERENCE_LOSSES) - REFERENCE_FREE):
        trainer.loss_types = [kind]
        theirs.zero_grad(set_to_none=True)
        expected = trainer.compute_loss(theirs, batch)
        expected.backward()
        spec = PreferenceSpec(loss=kind, beta=BETA, label_smoothing=SMOOTHING)
        ours = ObjectiveUnderModel(tiny_model, objective_for("va", pairs, reference_logs, spec)).at(range(len(pairs)))
        assert ours.loss == pytest.approx(expected.item(), rel=1e-5), kind
        assert_same_gradients(ours.gradient, gradients(theirs))


@pytest.mark.parametrize("phase", ["sft", "va"])
def test_averages_over_batches_are_those_of_one_batch(tiny_model, phase):
    """Every response token, or every pair, counts alike, whatever batch it is in: the shortest row stands alone
    here."""
    if phase == "sft":
        tiny_model.load(random_adapter(tiny_model, seed=6))
        objective = likelihood(tiny_model, encode_sft(tiny_model.tokenizer, EXAMPLES, 100))
    else:
        pairs = encode_pairs(tiny_model.tokenizer, PAIRS, 100)
        reference = reference_log_probs(tiny_model, random_adapter(tiny_model, seed=4), pairs, batch_size=2)
        tiny_model.load(random_adapter(tiny_model, seed=6))
        objective = ObjectiveUnderModel(tiny_model, objective_for("va", pairs, reference, DPO))
    parts = [(objective.at(indices).loss, objective.count(indices)) for indices in ([0, 1], [2])]
    mean = sum(loss * count for loss, count in parts) / sum(count for _, count in parts)
    assert mean == pytest.approx(objective.at(range(3)).loss, rel=1e-5)


@torch.no_grad()
def test_padding_and_company_do_not_change_a_rows_loss(tiny_model):
    tiny_model.load(random_adapter(tiny_model, seed=5))
    rows = encode_sft(tiny_model.tokenizer, EXAMPLES, 100)
    together, mask = tiny_model.token_log_probs(collate(rows, tiny_model.pad_id))
    for index, row in enumerate(rows):
        alone = response_nll(*tiny_model.token_log_probs(collate([row], tiny_model.pad_id)))
        assert float(response_nll(together[index], mask[index])) == pytest.approx(float(alone), rel=1e-5)
