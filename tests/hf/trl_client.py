"""A script of somebody who fine-tunes with TRL, as one client of a federation. Arguments: folder, client, phases."""

import sys
from pathlib import Path

from fccl.data.shards import load_shard
from fccl.hf import federate
from fccl.model.base_model import base_path
from fccl.paths import DataPaths
from tests.hf import made


def main(folder: Path, client_id: int, phases: list[str], keys_dir: str) -> None:
    shard, model = load_shard(DataPaths(folder / "data"), client_id), base_path("builtin:micro")
    arguments = {"per_device_train_batch_size": 1, "num_train_epochs": 4, "max_length": 256}
    trainers = {}
    if "sft" in phases:
        lora = made.lora(model, r=8, lora_alpha=16)
        trainers["sft"] = made.sft_trainer(model, folder / "out", lora, made.instructions(shard.sft), **arguments)
    if "va" in phases:
        lora = made.lora(model, r=8, lora_alpha=16)
        trainers["va"] = made.dpo_trainer(model, folder / "out", lora, made.pairs(shard.va), **arguments)
    print("ready", flush=True)
    federation = federate(**trainers, client_id=client_id, keys_dir=keys_dir, heartbeat_s=0.2, tell=print)
    for task in federation:
        federation.train(task)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3].split(","), sys.argv[4] if len(sys.argv) > 4 else "")
