"""A task and valid contributions to it, for the tests of what is read from the exchange directory."""

import json

import torch

from fccl.adapters.adapter import Adapter
from fccl.adapters.stored import AdapterReader
from fccl.testing.toy import MODEL, TRAIN
from fccl.transports.exchange.wire import VERSION, AdapterFile, TaskFile

LIKE = Adapter({"base.lora_A.weight": torch.arange(6.0).view(2, 3), "base.lora_B.weight": torch.arange(4.0)})
GOOD = LIKE.to_bytes()
READER = AdapterReader.like(LIKE)
WORK = {"clients": (1,), "model": MODEL, "train": TRAIN, "seed": 7}
TASK = TaskFile(
    version=VERSION, run_id="run", run_created=0.0, round=0, phase="sft", adapter=AdapterFile.of(GOOD), work=WORK
)
REPORT = {"tokens": 3, "tokens_per_second": 1.0, "steps": 1}


def contribution(content=GOOD, **changes):
    said = {
        "version": VERSION,
        "run_id": "run",
        "round": 0,
        "phase": "sft",
        "client_id": 1,
        "base_sha256": TASK.adapter.sha256,
        "adapter": AdapterFile.of(content).model_dump(),
        "avg_loss": 1.5,
        "num_samples": 2,
        "training_time": 0.5,
        "report": REPORT,
    }
    return said | changes


VALID = contribution()
ORIGINAL = {"client": 1, "round": 0, "phase": "sft", "avg_loss": 1.5, "num_samples": 2, "ts": 1.7e9}


def as_json(said):
    return json.dumps(said).encode()
