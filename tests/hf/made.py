"""Real trainers of TRL over the tiny model, and the tasks that a federation of it gives them."""

from __future__ import annotations

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from fccl.adapters.adapter import Adapter
from fccl.data.examples import PreferencePair, SftExample, prompt_of
from fccl.data.shards import ClientShard
from fccl.messages import FitTask
from fccl.specs import ModelSpec, TrainSpec

TARGETS = ["c_attn", "c_fc", "c_proj"]
SHARD = ClientShard(
    2,
    tuple(SftExample(f"What is {n}?", f"It is {'so ' * n}{n}.") for n in range(6)),
    tuple(PreferencePair(f"What is {n}?", f"It is {n}.", f"Go {'away ' * n}now.") for n in range(4)),
)
BETA = 0.3
TRAIN = TrainSpec(
    epochs=1,
    learning_rate=1e-3,
    batch_size=8,
    warmup=0,
    schedule="constant",
    max_grad_norm=1.0,
    dpo_beta=BETA,
    threads=1,
)
ARGUMENTS = {
    "report_to": "none",
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "max_length": 100,
    "per_device_train_batch_size": TRAIN.batch_size,
    "num_train_epochs": 1,
    "learning_rate": TRAIN.learning_rate,
    "lr_scheduler_type": "constant",
    "save_strategy": "no",
    "logging_strategy": "no",
    "disable_tqdm": True,
}


def spec(path, **changes):
    """The federation's model: rank 4 on every linear layer of the tiny model."""
    wanted = {"name": str(path), "lora_r": 4, "lora_alpha": 8.0, "lora_targets": "all-linear", "max_length": 128}
    return ModelSpec(**(wanted | changes))


def base(path):
    """Without GPT-2's dropout, which a trainer would have and the built-in learner has not."""
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_pdrop=0, resid_pdrop=0, embd_pdrop=0)


def config(**changes):
    usual = {"r": 4, "lora_alpha": 8.0, "target_modules": TARGETS, "fan_in_fan_out": True, "task_type": "CAUSAL_LM"}
    return LoraConfig(**(usual | changes))


def lora(path, **changes):
    return get_peft_model(base(path), config(**changes))


def instructions(examples=SHARD.sft):
    """Rows as TRL takes them, in the federation's form: the response follows after a space."""
    return Dataset.from_list([{"prompt": prompt_of(e.instruction), "completion": f" {e.response}"} for e in examples])


def pairs(examples=SHARD.va):
    return Dataset.from_list(
        [
            {"prompt": prompt_of(e.instruction), "chosen": f" {e.preferred}", "rejected": f" {e.dispreferred}"}
            for e in examples
        ]
    )


def sft_trainer(path, folder, model=None, data=None, **changes):
    from trl import SFTConfig, SFTTrainer

    return SFTTrainer(
        model or lora(path),
        args=SFTConfig(str(folder), **(ARGUMENTS | changes)),
        train_dataset=data or instructions(),
        processing_class=AutoTokenizer.from_pretrained(path),
    )


def dpo_trainer(path, folder, model=None, data=None, peft_config=None, **changes):
    from trl import DPOConfig, DPOTrainer

    return DPOTrainer(
        model or lora(path),
        args=DPOConfig(str(folder), beta=BETA, **(ARGUMENTS | changes)),
        train_dataset=data or pairs(),
        processing_class=AutoTokenizer.from_pretrained(path),
        peft_config=peft_config,
    )


def random_adapter(form, seed):
    """Neither factor is zero, so that every gradient is alive."""
    draw = torch.Generator().manual_seed(seed)
    return Adapter({name: 0.2 * torch.randn(shape, generator=draw) for name, shape in form.shapes.items()})


def task(path, form, phase="sft", number=0, train=TRAIN, seeds=(1, 2), **model):
    """A round's task from one random adapter; in VA rounds the reference is another."""
    reference = random_adapter(form, seeds[1]) if phase == "va" else None
    return FitTask("run", number, phase, random_adapter(form, seeds[0]), reference, spec(path, **model), train, seed=7)
