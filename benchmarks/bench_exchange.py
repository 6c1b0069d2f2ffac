"""The exchange directory without training: milliseconds a round, and the time and memory of taking many updates in.

    python benchmarks/bench_exchange.py [--clients 3 10 50 200] [--rounds 5] [--updates 10 1000] [--folder .]

The adapter is that of GPT-2 124M with LoRA of rank 8 on `c_attn`: 24 tensors, 1.18 MB.

1. Whole rounds. Clients are real processes that run the client's own loop with a learner that only answers. They share
the cores and the disk with
   the server, so "ms a round" holds their work too: each reads, hashes, writes and flushes 1.2 MB. "server CPU" is the
   orchestrator's own.
2. The server alone: all answers are there when the round opens, as when clients have machines of their own. Its memory
must not grow with them. 3. The aggregation alone, against Flower's of the same updates, when `flwr` can be imported:
`aggregate_arrayrecords`, which its FedAvg uses
   today, and `parameters_to_ndarrays` with `aggregate`, which it used before. Each in a process of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from fccl.adapters.adapter import Adapter  # noqa: E402
from fccl.adapters.stored import AdapterReader, StoredAdapter  # noqa: E402
from fccl.aggregation.mean import weighted_mean  # noqa: E402
from fccl.contribution.reported import ContributionRule  # noqa: E402
from fccl.data.examples import PreferencePair, SftExample  # noqa: E402
from fccl.data.shards import ClientShard  # noqa: E402
from fccl.federation.rounds import Federation  # noqa: E402
from fccl.federation.state import FederationState  # noqa: E402
from fccl.messages import ClientUpdate, FitTask, StatusListener  # noqa: E402
from fccl.paths import ExchangePaths  # noqa: E402
from fccl.records.run import Contribution, TrainingReport  # noqa: E402
from fccl.specs import ExchangeSpec, ModelSpec, RoundPlan, TrainSpec  # noqa: E402
from fccl.transports.exchange.client import ExchangeClient  # noqa: E402
from fccl.transports.exchange.server import ExchangeTransport  # noqa: E402
from fccl.transports.exchange.wire import VERSION, AdapterFile, TaskFile, UpdateFile  # noqa: E402

MODEL = ModelSpec(name="gpt2-sized", lora_r=8, lora_alpha=16, max_length=512)
TRAIN = TrainSpec(epochs=1, learning_rate=0.1, batch_size=1, warmup=0, max_grad_norm=1, threads=1)
CONTEXT = multiprocessing.get_context("forkserver")


def gpt2_sized(seed: int) -> Adapter:
    draw = torch.Generator().manual_seed(seed)
    shapes = {"A": (8, 768), "B": (2304, 8)}
    return Adapter(
        {
            f"base_model.model.transformer.h.{layer}.attn.c_attn.lora_{factor}.weight": torch.randn(
                shape, generator=draw
            )
            for layer in range(12)
            for factor, shape in shapes.items()
        }
    )


class Echo:
    """Answers with the adapter it was given."""

    def fit(self, task: FitTask, shard: ClientShard, on_status: StatusListener) -> ClientUpdate:
        contribution = Contribution(avg_loss=1.0, num_samples=1, seconds=0.0)
        return ClientUpdate(
            task.run_id,
            shard.client_id,
            task.round,
            task.phase,
            task.adapter,
            contribution,
            TrainingReport(tokens=1, tokens_per_second=1, steps=1),
        )


def shard(client_id: int) -> ClientShard:
    return ClientShard(client_id, (SftExample("say", "yes"),), (PreferencePair("say", "yes", "no"),))


def client(root: Path, first: int, count: int) -> None:
    """`count` client processes, forked here."""
    torch.set_num_threads(1)
    children = []
    for client_id in range(first, first + count):
        if (child := os.fork()) == 0:
            ExchangeClient(ExchangePaths(root), client_id, Echo(), shard, heartbeat_s=5.0).run()
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


@dataclass
class RoundTimes:
    clients: int
    wall_ms: float
    cpu_ms: float


def bench_rounds(clients: int, rounds: int, folder: Path) -> RoundTimes:
    """The median round with so many clients, the first left out: in it the clients start."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        root = Path(name)
        plan = RoundPlan(fed_rounds=(rounds + 2) // 2 + 1, num_clients=clients, clients_per_round=clients, seed=0)
        federation = Federation("bench", plan, MODEL, {"sft": TRAIN, "va": TRAIN}, ContributionRule())
        spec = ExchangeSpec(num_clients=clients, quorum=clients, retries=0, timeout_s=300, stale_s=300, keep_rounds=1)
        process = CONTEXT.Process(target=client, args=(root / "exchange", 0, clients))
        process.start()
        walls, cpus, state = [], [], FederationState(0, gpt2_sized(0))
        with ExchangeTransport(ExchangePaths(root / "exchange"), spec, root / "received") as transport:
            cpu = time.process_time()
            for result in federation.run(state, transport):
                state = result.state
                walls.append(result.record.seconds * 1000)
                cpus.append((time.process_time() - cpu) * 1000)
                cpu = time.process_time()
                if len(walls) > rounds:
                    break
            transport.finish("bench", state.next_round, state.adapter)
        process.join()
    return RoundTimes(clients, statistics.median(walls[1:]), statistics.median(cpus[1:]))


def print_rounds(counts: list[int], rounds: int, folder: Path) -> None:
    print(
        f"1. A round without training, adapter of {len(gpt2_sized(0).to_bytes()) / 1e6:.2f} MB, median of {rounds} "
        "rounds"
    )
    print(
        f"{'clients':>8} {'ms a round':>11} {'ms a client more':>17} {'server CPU ms':>14} {'aim: 30 + 3 a client':>21}"
    )
    before = None
    for clients in counts:
        now = bench_rounds(clients, rounds, folder)
        more = f"{(now.wall_ms - before.wall_ms) / (clients - before.clients):.2f}" if before else ""
        print(f"{clients:>8} {now.wall_ms:>11.1f} {more:>17} {now.cpu_ms:>14.1f} {30 + 3 * clients:>21}", flush=True)
        before = now


# --- one measurement in a process of its own: `python bench_exchange.py one KIND COUNT FOLDER` prints JSON


def write_answers(paths: ExchangePaths, task: TaskFile, content: bytes, count: int) -> None:
    """Answers of `count` clients, not flushed: they are not what is measured."""
    whose = {
        "version": VERSION,
        "run_id": task.run_id,
        "round": task.round,
        "phase": task.phase,
        "base_sha256": task.adapter.sha256,
    }
    said = {"adapter": AdapterFile.of(content), "avg_loss": 1.0, "num_samples": 1, "training_time": 0.0}
    report = TrainingReport(tokens=1, tokens_per_second=1, steps=1)
    for client_id in range(count):
        update, contribution, flag = paths.answer(client_id, task.round)
        update.write_bytes(content)
        contribution.write_bytes(
            UpdateFile.model_validate({**whose, **said, "client_id": client_id, "report": report}).written()
        )
        flag.touch()


def one_server(count: int, folder: Path) -> tuple[float, float]:
    """Seconds of a round whose answers are there, and MB at its beginning."""
    paths, adapter = ExchangePaths(folder / "exchange"), gpt2_sized(0)
    plan = RoundPlan(fed_rounds=1, num_clients=count, clients_per_round=count, seed=0)
    federation = Federation("bench", plan, MODEL, {"sft": TRAIN, "va": TRAIN}, ContributionRule())
    spec = ExchangeSpec(num_clients=count, quorum=1, retries=0, timeout_s=300, stale_s=300, keep_rounds=1)
    with ExchangeTransport(paths, spec, folder / "received") as transport:
        asked = FitTask("bench", 0, "sft", adapter, None, MODEL, TRAIN, 0)
        task = transport.open(asked, tuple(range(count)))
        write_answers(paths, task, gpt2_sized(1).to_bytes(), count)
        os.sync()
        base, started = peak_mb(), time.perf_counter()
        federation.run_round(FederationState(0, adapter), transport)
        return time.perf_counter() - started, base


def stored_updates(folder: Path, count: int) -> list[StoredAdapter]:
    """As many updates as files; a few different ones, so that writing them takes no time."""
    reader, updates = AdapterReader.like(gpt2_sized(0)), []
    contents = [gpt2_sized(seed).to_bytes() for seed in range(8)]
    for number in range(count):
        path, content = folder / f"{number}.safetensors", contents[number % len(contents)]
        path.write_bytes(content)
        updates.append(StoredAdapter(path, hashlib.sha256(content).hexdigest(), reader))
    return updates


def aggregate_here(updates: list[StoredAdapter]) -> Adapter:
    weight = 1 / len(updates)
    return weighted_mean((weight, update.load()) for update in updates)


def with_records(updates: list[StoredAdapter]) -> Callable[[], object]:
    from flwr.app import ArrayRecord, MetricRecord, RecordDict
    from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

    records = [
        RecordDict(
            {
                "arrays": ArrayRecord(torch_state_dict=dict(update.load().tensors)),
                "metrics": MetricRecord({"num-examples": 1}),
            }
        )
        for update in updates
    ]
    return lambda: aggregate_arrayrecords(records, "num-examples")


def with_parameters(updates: list[StoredAdapter]) -> Callable[[], object]:
    from flwr.common import ndarrays_to_parameters, parameters_to_ndarrays
    from flwr.server.strategy.aggregate import aggregate

    parameters = [
        ndarrays_to_parameters([tensor.numpy() for tensor in update.load().tensors.values()]) for update in updates
    ]
    return lambda: aggregate([(parameters_to_ndarrays(each), 1) for each in parameters])


KINDS: dict[str, Callable[[list[StoredAdapter]], Callable[[], object]]] = {
    "fccl": lambda updates: lambda: aggregate_here(updates),
    "flwr records": with_records,
    "flwr parameters": with_parameters,
}


def one(kind: str, count: int, folder: Path) -> dict[str, float]:
    torch.set_num_threads(1)
    if kind == "server":
        seconds, base = one_server(count, folder)
    else:
        updates = stored_updates(folder, count)
        KINDS[kind](updates[:2])()  # everything is imported and warm
        base = peak_mb()
        work = KINDS[kind](updates)
        started = time.perf_counter()
        work()
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak_mb": peak_mb(), "grown_mb": peak_mb() - base}


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def print_each(kinds: Sequence[str], counts: list[int], folder: Path) -> None:
    print(f"{'':>16} {'updates':>8} {'seconds':>8} {'ms an update':>13} {'peak MB':>8} {'grown MB':>9}")
    for kind in kinds:
        for count in counts:
            with tempfile.TemporaryDirectory(dir=folder) as name:
                command = [sys.executable, __file__, "one", kind, str(count), name]
                found = json.loads(
                    subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
                )
            per = found["seconds"] / count * 1000
            print(
                f"{kind:>16} {count:>8} {found['seconds']:>8.2f} {per:>13.2f} {found['peak_mb']:>8.0f} "
                f"{found['grown_mb']:>9.1f}",
                flush=True,
            )


def flower_version() -> str | None:
    try:
        return version("flwr")
    except PackageNotFoundError:
        return None


def main() -> int:
    if sys.argv[1:2] == ["one"]:
        print(json.dumps(one(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="*", default=[3, 10, 50, 200])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, nargs="*", default=[10, 1000])
    parser.add_argument(
        "--folder", type=Path, default=ROOT, help="where the directory is made: on the disk to be measured"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    CONTEXT.set_forkserver_preload(["torch", "fccl.transports.exchange.client"])
    print_rounds(options.clients, options.rounds, options.folder)
    print("\n2. The server alone: a round whose answers are all there")
    print_each(["server"], options.updates, options.folder)
    flower = flower_version()
    print(
        "\n3. The aggregation "
        f"alone{f', and that of flwr {flower}' if flower else '; flwr is not installed here, so it is not compared'}"
    )
    print_each(list(KINDS) if flower else ["fccl"], options.updates, options.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
