"""What a client costs that waits: its share of a core, with notifications and without, beside the files of many others.

    python benchmarks/bench_idle.py [--clients 300] [--seconds 10]

A heartbeat each second. Ends with status 1 when the share is over 3 % (it takes about 0.3 %).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fccl.paths import ExchangePaths  # noqa: E402
from fccl.testing.toy import ToyLearner, shard  # noqa: E402
from fccl.transports.exchange.client import ExchangeClient  # noqa: E402
from fccl.transports.exchange.wire import VERSION  # noqa: E402

MOST = 0.03
OVER = {
    "version": VERSION,
    "run_id": "run",
    "run_created": 1.0,
    "round": 0,
    "phase": "done",
    "adapter": {"sha256": "0" * 64, "length": 1},
}


def end_of_run(paths: ExchangePaths) -> None:
    paths.task(0).write_text(json.dumps(OVER))
    paths.phase(0).write_text("done")


def share_of_a_core(folder: Path, how: Literal["notify", "poll"], clients: int, seconds: float) -> float:
    """CPU time for each second in which a client waits for its first round."""
    paths = ExchangePaths(folder)
    for number in range(clients):
        paths.flag(number, 0).touch()
    client = ExchangeClient(paths, 0, ToyLearner(), shard, heartbeat_s=1.0, watch=how, grace_s=0.0)
    thread = threading.Thread(target=client.run)
    thread.start()
    time.sleep(0.5)
    started, before = time.monotonic(), sum(os.times()[:2])
    time.sleep(seconds)
    share = (sum(os.times()[:2]) - before) / (time.monotonic() - started)
    end_of_run(paths)
    thread.join(10)
    return share


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    shares = []
    for how in ("notify", "poll"):
        with tempfile.TemporaryDirectory() as folder:
            shares.append(share_of_a_core(Path(folder), how, arguments.clients, arguments.seconds))
        print(f"{how:8} {shares[-1]:6.2%} of a core")
    return int(max(shares) > MOST)


if __name__ == "__main__":
    sys.exit(main())
