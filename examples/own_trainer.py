"""A TRL script as one client of a federation: two trainers as they always were, and three lines.

    python examples/own_trainer.py

The rest of the federation is in processes that this script starts; in real life it is on other machines.
docs/my-trainer.md says what a trainer must be like.
"""

import multiprocessing

import fccl
from fccl.extras import require_extra
from fccl.hf import federate

ME = 2  # the number of this client


def others(client_ids: list[int]) -> None:
    """Another process's work: these clients, or the orchestrator where none is named."""
    for client_id in client_ids:
        fccl.Client(client_id=client_id).run()
    if not client_ids:
        fccl.Orchestrator(fccl.prepare()).train()


def trainers() -> dict:
    """An SFTTrainer and a DPOTrainer, as in any script."""
    require_extra("trl", "this example")
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    from fccl.data.examples import prompt_of
    from fccl.model.base_model import base_path  # the built-in model's folder; yours may be any name or folder

    shard, model, targets = fccl.prepare().shard(ME), base_path("builtin:micro"), ["c_attn", "c_fc", "c_proj"]
    told = [{"prompt": prompt_of(row.instruction), "completion": f" {row.response}"} for row in shard.sft]
    pairs = [{"prompt": prompt_of(row.instruction), "chosen": f" {row.preferred}"} for row in shard.va]
    pairs = [pair | {"rejected": f" {row.dispreferred}"} for pair, row in zip(pairs, shard.va, strict=True)]
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=targets, fan_in_fan_out=True, task_type="CAUSAL_LM")
    usual = {"output_dir": "trainer", "use_cpu": True, "bf16": False, "save_strategy": "no", "report_to": "none"}
    sft, va = SFTConfig(learning_rate=4e-3, **usual), DPOConfig(learning_rate=2e-4, beta=0.5, **usual)
    first = SFTTrainer(model, args=sft, train_dataset=Dataset.from_list(told), peft_config=lora)
    second = DPOTrainer(model, args=va, train_dataset=Dataset.from_list(pairs), peft_config=lora)
    return {"sft": first, "va": second}


def main() -> None:
    fccl.prepare()
    for ids in ([], [0], [1]):
        multiprocessing.get_context("spawn").Process(target=others, args=(ids,)).start()
    federation = federate(**trainers(), client_id=ME)
    for task in federation:
        update = federation.train(task)
        print(f"round {task.round + 1} ({task.phase}): loss {update.contribution.avg_loss:.3f}")


if __name__ == "__main__":
    main()
