"""Every aggregation rule on updates that lie in files: CPU seconds and memory, and how far Flower's own is from ours.

    python benchmarks/bench_aggregation.py [--updates 10 200] [--rules median krum …] [--folder .]

The adapter is that of GPT-2 124M with LoRA of rank 8 on `c_attn`: 24 tensors, 295 thousand values, 1.18 MB. One thread,
as the rules always compute.

1. Each rule in a process of its own. "grown MB" is how much its peak memory is above what it was before, everything
imported and warm. 2. When `flwr` can be imported: its strategies on the same random updates of nine clients, three
rounds, and the largest difference from ours in units
   of the largest change. Where the two mean different things the line says what, and what was done about it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from fccl.adapters.adapter import Adapter  # noqa: E402
from fccl.adapters.stored import AdapterReader, StoredAdapter  # noqa: E402
from fccl.aggregation.lora_mean import product_error  # noqa: E402
from fccl.aggregation.protocol import Parts  # noqa: E402
from fccl.aggregation.rules import RULES, aggregation  # noqa: E402
from fccl.aggregation.state import ServerState  # noqa: E402

KINDS = [*(name for name in RULES if name not in ("fedprox", "scaffold")), "svd", "exact", "product_error"]
RANK = 8
Arrays = list[np.ndarray]


def gpt2_sized(seed: int, size: float = 1.0) -> Adapter:
    draw = torch.Generator().manual_seed(seed)
    shapes = {"A": (RANK, 768), "B": (2304, RANK)}
    return Adapter(
        {
            f"base_model.model.transformer.h.{layer}.attn.c_attn.lora_{factor}.weight": size
            * torch.randn(shape, generator=draw)
            for layer in range(12)
            for factor, shape in shapes.items()
        }
    )


def stored(folder: Path, count: int) -> Parts:
    """As many updates as files, all different, equal weights."""
    reader, updates = AdapterReader.like(gpt2_sized(0)), []
    for number in range(count):
        path, content = folder / f"{number}.safetensors", gpt2_sized(number + 1).to_bytes()
        path.write_bytes(content)
        updates.append(StoredAdapter(path, hashlib.sha256(content).hexdigest(), reader))
    return Parts((1 / count,) * count, updates)


def work(kind: str, before: Adapter, parts: Parts) -> None:
    if kind == "product_error":
        product_error(before, parts, before)
        return
    rule = aggregation("fedavg", kind, RANK) if kind in ("svd", "exact") else aggregation(kind)
    rule.aggregate(before, parts, rule.initial(before))


def one(kind: str, count: int, folder: Path) -> dict[str, float]:
    torch.set_num_threads(1)
    before, parts = gpt2_sized(0), stored(folder, count)
    few = parts.updates[:5]
    work(kind, before, Parts((1 / len(few),) * len(few), few))  # everything is imported and warm
    base, started = peak_mb(), time.process_time()
    work(kind, before, parts)
    return {"seconds": time.process_time() - started, "peak_mb": peak_mb(), "grown_mb": peak_mb() - base}


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def print_costs(kinds: list[str], counts: list[int], folder: Path) -> None:
    print(f"{'':>18} {'updates':>8} {'CPU s':>8} {'peak MB':>8} {'grown MB':>9}")
    for kind in kinds:
        for count in counts:
            with tempfile.TemporaryDirectory(dir=folder) as name:
                command = [sys.executable, __file__, "one", kind, str(count), name]
                found = json.loads(
                    subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
                )
            print(
                f"{kind:>18} {count:>8} {found['seconds']:>8.2f} {found['peak_mb']:>8.0f} {found['grown_mb']:>9.1f}",
                flush=True,
            )


# --- Flower's strategies on the same updates

ETA, BETA1, BETA2, TAU, BAD, KEEP, CLIENTS = 0.1, 0.9, 0.99, 1e-3, 2, 3, 9
ADAPTIVE = "v begins at 0 in flwr and at tau² here, as in the paper; here it was set to 0 for the comparison"
MEANT = {
    "fedavgm": "",
    "fedadagrad": ADAPTIVE,
    "fedyogi": ADAPTIVE,
    "fedadam": f"{ADAPTIVE}; flwr's correction of the bias, which the paper has not, was put into the learning rate",
    "median": "",
    "trimmed_mean": "",
    "krum": "",
    "multi_krum": "",
}


def small(seed: int) -> Arrays:
    draw = np.random.default_rng(seed)
    return [draw.normal(size=shape).astype(np.float32) for shape in ((20, 10), (30,))]


def as_adapter(arrays: Arrays) -> Adapter:
    return Adapter({f"t{index}": torch.from_numpy(np.array(array)) for index, array in enumerate(arrays)})


def ours(name: str, rounds: list[list[Arrays]], start: Arrays) -> Arrays:
    now, state = as_adapter(start), None
    for number, updates in enumerate(rounds, start=1):
        bias = math.sqrt(1 - BETA2 ** (number + 1)) / (1 - BETA1 ** (number + 1)) if name == "fedadam" else 1.0
        momentum = 0.0 if name == "fedadagrad" else BETA1
        rule = aggregation(
            name,
            server_lr=ETA * bias,
            server_momentum=momentum,
            server_beta2=BETA2,
            server_tau=TAU,
            max_bad_clients=BAD,
            krum_keep=KEEP,
        )
        state = state or ServerState({key: tensor * 0 for key, tensor in rule.initial(now).tensors.items()})
        result = rule.aggregate(now, Parts((1 / CLIENTS,) * CLIENTS, [as_adapter(update) for update in updates]), state)
        now, state = result.adapter, result.state
    return [tensor.numpy() for tensor in now.tensors.values()]


def theirs(name: str, rounds: list[list[Arrays]], start: Arrays) -> Arrays:
    from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
    from flwr.serverapp import strategy
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    rates: dict[str, Any] = {"eta": ETA, "beta_1": BETA1, "beta_2": BETA2, "tau": TAU}
    makers: dict[str, Callable[[], Any]] = {
        "fedavgm": lambda: strategy.FedAvgM(server_learning_rate=ETA, server_momentum=BETA1),
        "fedadagrad": lambda: strategy.FedAdagrad(eta=ETA, tau=TAU),
        "fedyogi": lambda: strategy.FedYogi(**rates),
        "fedadam": lambda: strategy.FedAdam(**rates),
        "median": strategy.FedMedian,
        "trimmed_mean": lambda: strategy.FedTrimmedAvg(beta=(BAD + 0.5) / CLIENTS),
        "krum": lambda: strategy.Krum(num_malicious_nodes=BAD),
        "multi_krum": lambda: strategy.MultiKrum(num_malicious_nodes=BAD, num_nodes_to_select=KEEP),
    }
    chosen, now = makers[name](), ArrayRecord([np.array(array) for array in start])
    for number, updates in enumerate(rounds, start=1):
        if name != "fedavgm" or number == 1:  # what its configure_train does
            chosen.current_arrays = now if name == "fedavgm" else {key: array.numpy() for key, array in now.items()}
        contents = [
            RecordDict({"arrays": ArrayRecord(update), "metrics": MetricRecord({"num-examples": 1})})
            for update in updates
        ]
        now, _ = chosen.aggregate_train(
            number, [Message(content, dst_node_id=0, message_type="train") for content in contents]
        )
    found: Arrays = now.to_numpy_ndarrays()
    return found


def print_differences() -> None:
    start = small(0)
    for name, meant in MEANT.items():
        rounds = [
            [
                [s + 0.1 * u for s, u in zip(start, small(100 * number + client), strict=True)]
                for client in range(CLIENTS)
            ]
            for number in (1, 2, 3)
        ]
        found = [
            np.concatenate([array.ravel() for array in arrays])
            for arrays in (start, ours(name, rounds, start), theirs(name, rounds, start))
        ]
        print(
            f"{name:>18}  {np.abs(found[1] - found[2]).max() / np.abs(found[1] - found[0]).max():.1e}  {meant}",
            flush=True,
        )


def main() -> int:
    if sys.argv[1:2] == ["one"]:
        print(json.dumps(one(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, nargs="*", default=[10, 200])
    parser.add_argument("--rules", nargs="*", default=KINDS, choices=KINDS)
    parser.add_argument("--folder", type=Path, default=ROOT, help="where the updates are written")
    options = parser.parse_args()
    print_costs(options.rules, options.updates, options.folder)
    try:
        print(
            f"\nAgainst flwr {version('flwr')}: largest difference after three rounds, in units of the largest change"
        )
        logging.disable(logging.INFO)  # flwr tells of every call
        print_differences()
    except PackageNotFoundError:
        print("flwr is not installed here, so nothing is compared")
    return 0


if __name__ == "__main__":
    sys.exit(main())
