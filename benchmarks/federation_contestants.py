"""One way to do a whole federation, in a process of its own: `bench_federation.py` starts it.

    python benchmarks/federation_contestants.py NAME JOB.json

The job names the base model's folder, the prepared data and how many clients and rounds there are. Writes one line of
JSON: the seconds from the first line of work to the final adapter, the peak memory in bytes (of the largest process,
where there are several), and where the time went, as far as the contestant knows.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

if TYPE_CHECKING:  # a rival's memory is its own
    from fccl.specs import Engine

RANK, ALPHA, BETA, BATCH, MOST = 8, 16.0, 0.5, 8, 256
RATES = {"sft": 1e-3, "va": 1e-4}
PEAK = "peak"  # of the process that trained, in what a contestant answers
State = dict[str, torch.Tensor]
Split = dict[str, float]


@dataclass(frozen=True)
class Job:
    """The work, the same for every contestant."""

    model: str  # a folder, or builtin:micro
    folder: str  # of the base model as transformers reads it
    data: str  # a folder of prepared shards
    prepared: dict[str, Any]  # the settings that they were prepared with, but for the number of clients
    clients: int
    rounds: int  # of each phase
    targets: str  # of LoRA
    threads: int
    batch: int = BATCH


def peak() -> float:
    """The most memory that this process had, in bytes."""
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def read_job(path: Path) -> Job:
    return Job(**json.loads(path.read_text()))


# --- this system


def ours(engine: Engine) -> Callable[[Job], Split]:
    """A run with verified contributions, as a library user does it."""

    def whole(job: Job) -> Split:
        import fccl

        with tempfile.TemporaryDirectory() as logs:
            run = fccl.FederatedRun(
                **job.prepared,
                data_dir=job.data,
                log_dir=logs,
                engine=engine,
                model_name=job.model,
                lora_r=RANK,
                lora_alpha=ALPHA,
                lora_targets=job.targets,
                max_length=MOST,
                batch_size=job.batch,
                sft_lr=RATES["sft"],
                va_lr=RATES["va"],
                dpo_beta=BETA,
                num_clients=job.clients,
                fed_rounds=job.rounds,
                threads=job.threads,
                client_processes=1,  # as its rivals: seconds are split by part, and memory is one process's
                contribution_source="verified",
            )
            return split([result.record for result in run])

    return whole


def split(records: Sequence[Any]) -> Split:
    """Where the time of rounds went, in seconds: from their records."""
    training = sum(said.seconds for record in records for said in record.contributions)
    verification = sum(record.verification.seconds for record in records if record.verification)
    return {
        "training": training,
        "verification": verification,
        "validation, aggregation, messages": sum(record.seconds for record in records) - training - verification,
    }


# --- TRL


def rows(job: Job, client: int, phase: str) -> list[dict[str, str]]:
    """A client's prepared shard, as TRL takes it."""
    from fccl.data.examples import prompt_of

    lines = (Path(job.data) / "clients" / f"client_{client}_{phase}.jsonl").read_text().splitlines()
    return [trl_row(json.loads(line), prompt_of) for line in lines]


def trl_row(row: dict[str, str], prompt_of: Callable[[str], str]) -> dict[str, str]:
    names = {"preferred": "chosen", "dispreferred": "rejected"} if "preferred" in row else {"response": "completion"}
    return {"prompt": prompt_of(row["instruction"])} | {trl: f" {row[ours]}" for ours, trl in names.items()}


def trl_fit(job: Job, client: int, phase: str, start: State | None, reference: State | None) -> tuple[State, int]:
    """One client's round: a fresh model with the global adapter, TRL's trainer, the adapter after it."""
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    torch.set_num_threads(job.threads)
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(job.folder, dtype=torch.float32)
    targets = job.targets if job.targets == "all-linear" else job.targets.split(",")
    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets, task_type="CAUSAL_LM")
    model = get_peft_model(base, lora)
    if start is not None:
        set_peft_model_state_dict(model, start)
    Config, Trainer = (SFTConfig, SFTTrainer) if phase == "sft" else (DPOConfig, DPOTrainer)
    shard = rows(job, client, phase)
    with tempfile.TemporaryDirectory() as scratch:
        config = Config(
            output_dir=scratch,
            bf16=False,  # TRL's default, which a CPU must be told to leave; gradient checkpointing stays as it comes
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            max_length=MOST,
            learning_rate=RATES[phase],
            per_device_train_batch_size=job.batch,
            num_train_epochs=1,
            **({"beta": BETA} if phase == "va" else {}),
        )
        tokenizer = AutoTokenizer.from_pretrained(job.folder)
        trainer = Trainer(model=model, args=config, train_dataset=Dataset.from_list(shard), processing_class=tokenizer)
        if reference is not None and "ref" in model.peft_config:  # TRL's copy of the adapter at hand is not the one
            set_peft_model_state_dict(model, reference, adapter_name="ref")
        trainer.train()
    return {name: tensor.detach().clone() for name, tensor in get_peft_model_state_dict(model).items()}, len(shard)


def mean_state(answers: Sequence[tuple[State, int]]) -> State:
    """FedAvg: the mean of the adapters, weighted by examples."""
    total = sum(count for _, count in answers)
    return {
        name: sum((state[name].double() * (count / total) for state, count in answers), torch.zeros(())).float()
        for name in answers[0][0]
    }


def trl_loop(job: Job) -> Split:
    """A loop over phases, rounds and clients, FedAvg between. It neither weighs nor validates."""
    state: State | None = None
    found = {"training": 0.0, "FedAvg": 0.0}
    for phase in ("sft", "va"):
        reference = state if phase == "va" else None
        for _ in range(job.rounds):
            started = time.perf_counter()
            answers = [trl_fit(job, client, phase, state, reference) for client in range(job.clients)]
            trained = time.perf_counter()
            state = mean_state(answers)
            found["training"] += trained - started
            found["FedAvg"] += time.perf_counter() - trained
    return found


# --- Flower's simulation around the same


def flower(job: Job) -> Split:
    """Flower's simulation, its FedAvg, one client at a time on all cores; each client is the TRL round above."""
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp
    from flwr.simulation import run_simulation

    client_app, server_app = ClientApp(), ServerApp()
    client_app.train()(lambda message, context: flower_answer(job, message, context))
    peaks: list[float] = []
    server_app.main()(lambda grid, context: peaks.extend(flower_rounds(job, grid)))
    resources: dict[str, dict[str, Any]] = {"client_resources": {"num_cpus": job.threads, "num_gpus": 0.0}}
    run_simulation(server_app, client_app, num_supernodes=job.clients, backend_config=resources)
    if len(peaks) < 2 * job.rounds * job.clients:
        raise SystemExit(f"Flower has {len(peaks)} answers of {2 * job.rounds * job.clients}")
    return {PEAK: max(peaks)}


def flower_answer(job: Job, message: Any, context: Any) -> Any:
    """The client's side of one round."""
    from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

    records, config = message.content, message.content["config"]
    state, reference = (
        records[name].to_torch_state_dict() if name in records and len(records[name]) else None
        for name in ("arrays", "reference")
    )
    phase, client = str(config["phase"]), int(context.node_config["partition-id"])
    if config["server-round"] == 0:
        state = None
    trained, count = trl_fit(job, client, phase, state, reference)
    metrics = MetricRecord({"num-examples": count, PEAK: peak()})
    return Message(content=RecordDict({"arrays": ArrayRecord(trained), "metrics": metrics}), reply_to=message)


def flower_rounds(job: Job, grid: Any) -> list[float]:
    """The server's side: the same rounds as the loop above, sent by Flower's grid, averaged by Flower's FedAvg.

    Returns the peak memory that each answer's process had.
    """
    from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
    from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

    while len(nodes := list(grid.get_node_ids())) < job.clients:
        time.sleep(0.2)
    arrays, reference = ArrayRecord({"none": torch.zeros(1)}), None
    peaks: list[float] = []
    for number in range(2 * job.rounds):
        phase = "sft" if number < job.rounds else "va"
        reference = arrays if number == job.rounds else reference
        content: dict[str, Any] = {"arrays": arrays, "config": ConfigRecord({"phase": phase, "server-round": number})}
        content |= {"reference": reference} if reference is not None else {}
        asked = [
            Message(content=RecordDict(content), message_type=MessageType.TRAIN, dst_node_id=node) for node in nodes
        ]
        replies = [message for message in grid.send_and_receive(asked) if message.has_content()]
        if len(replies) < job.clients:
            raise SystemExit(f"{job.clients - len(replies)} of Flower's clients have not answered round {number + 1}")
        arrays = aggregate_arrayrecords([message.content for message in replies], "num-examples")
        peaks += [float(message.content["metrics"][PEAK]) for message in replies]
    return peaks


CONTESTANTS: dict[str, Callable[[Job], Split]] = {
    "auto": ours("auto"),
    "generic": ours("generic"),
    "trl": trl_loop,
    "flower": flower,
}


def main(name: str, job_file: str) -> None:
    said, sys.stdout = sys.stdout, sys.stderr  # libraries print; only the last line is the protocol's
    job = read_job(Path(job_file))
    torch.set_num_threads(job.threads)
    started = time.perf_counter()
    found = CONTESTANTS[name](job)
    seconds = time.perf_counter() - started
    most = max(peak(), found.pop(PEAK, 0.0))
    print(json.dumps({"seconds": seconds, "peak": most, "split": found}), file=said, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:3])
