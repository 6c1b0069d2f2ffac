"""Secure aggregation (`SECURE_AGGREGATION`): bytes and seconds of a round beside training, for some numbers of clients.

    python benchmarks/bench_secure.py [--clients 3,20] [--numbers 100000] [--rounds 5]

All clients are in this process, so the seconds are those of one core: a client's own are the mean over the clients, the
server's are the rest. Bytes are those of the requests and replies as JSON, and of the update's file. `dropped` is a
round in which a fifth of the clients, at least one, give shares and no update. Clients do not train.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from pydantic import BaseModel

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fccl.adapters.adapter import Adapter  # noqa: E402
from fccl.data.shards import ClientShard  # noqa: E402
from fccl.federation.arrived import file_length  # noqa: E402
from fccl.federation.state import FederationState  # noqa: E402
from fccl.messages import ClientFailure, ClientUpdate, FitTask, Given, Request, StatusListener  # noqa: E402
from fccl.records.run import Contribution, TrainingReport  # noqa: E402
from fccl.testing.secure import Folders, masking_transport, secured  # noqa: E402
from fccl.testing.toy import federation  # noqa: E402
from fccl.transports.protocol import Transport  # noqa: E402
from fccl.transports.wrapped import WrappedTransport  # noqa: E402


class Mover:
    """Moves every number a little, at no cost."""

    def fit(self, task: FitTask, shard: ClientShard, on_status: StatusListener) -> ClientUpdate:
        """The update."""
        moved = Adapter.of_vector(task.adapter.vector + 1e-3 * (shard.client_id + 1), task.adapter.form)
        said = (
            Contribution(avg_loss=1.0, num_samples=3, seconds=0.0),
            TrainingReport(tokens=1, tokens_per_second=1, steps=1),
        )
        return ClientUpdate(task.run_id, shard.client_id, task.round, task.phase, moved, *said)


@dataclass(frozen=True, eq=False)
class Weighed(WrappedTransport):
    """Counts the bytes and the seconds of all that passes; the update of a client in `dropped` is lost."""

    dropped: frozenset[int] = frozenset()
    down: list[int] = field(default_factory=list)  # bytes to each client
    up: list[int] = field(default_factory=list)  # bytes of all clients
    seconds: list[float] = field(default_factory=list)  # of all clients

    def ask(self, request: Request[Given], client_ids: Sequence[int]) -> Iterator[Given | ClientFailure]:
        """Passed on."""
        terms = request.terms()
        said = terms.get("secure", {}) if isinstance(request, FitTask) else terms
        self.down.append(len(json.dumps(said)))
        began = time.process_time()
        for answer in super().ask(request, client_ids):
            self.seconds.append(time.process_time() - began)
            self.up.append(_length(answer))
            if isinstance(answer, ClientUpdate) and answer.client_id in self.dropped:
                yield ClientFailure(answer.client_id, "lost")
            else:
                yield answer
            began = time.process_time()


def _length(answer: object) -> int:
    if isinstance(answer, ClientUpdate):
        return 0  # as without masks
    if isinstance(answer, ClientFailure):
        return 0
    assert isinstance(answer, BaseModel)
    return len(answer.model_dump_json())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", default="3,20")
    parser.add_argument("--numbers", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = Adapter({"w": torch.zeros(options.numbers)})
    print(f"An update has {file_length(start):,} bytes, masked or not. Median of {options.rounds} rounds.\n")
    print("| clients | dropped | down to a client | up from a client | seconds of a client | of the server |")
    print("|---:|---:|---:|---:|---:|---:|")
    for clients in map(int, options.clients.split(",")):
        for dropped in (0, max(1, clients // 5)):
            print(row(start, clients, dropped, options.rounds), flush=True)
    return 0


def row(start: Adapter, clients: int, dropped: int, rounds: int) -> str:
    """One line of the table: of the bytes that masks add, and of the processor's seconds."""
    found = [measured(start, clients, dropped) for _ in range(rounds)]
    down, up, own, server = (median(column) for column in zip(*found, strict=True))
    return f"| {clients} | {dropped} | {down:,.0f} | {up:,.0f} | {own:.3f} | {server:.3f} |"


def measured(start: Adapter, clients: int, dropped: int) -> tuple[float, float, float, float]:
    """One round: bytes down to a client, up from one, a client's seconds, the server's."""
    with tempfile.TemporaryDirectory(prefix="fccl-bench-") as name:
        inner: Transport = masking_transport(Mover(), Folders(Path(name) / "clients"))
        transport = Weighed(inner, frozenset(range(dropped)))
        fed = secured(federation(clients, 1, sft_rounds=1, va_rounds=0), Path(name) / "server")
        began = time.process_time()
        list(fed.run(FederationState(0, start), transport))
        total = time.process_time() - began
    own = sum(transport.seconds)
    return sum(transport.down), sum(transport.up) / clients, own / clients, total - own


if __name__ == "__main__":
    sys.exit(main())
