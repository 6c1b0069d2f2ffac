"""Clients and orchestrators of the toy federation in processes of their own, each forked from a server that has loaded
torch already.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch

from fccl.federation.run import Run
from fccl.federation.run_folder import RunFolder
from fccl.messages import Learner
from fccl.paths import ExchangePaths
from fccl.specs import ExchangeSpec
from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.transports.exchange.client import ExchangeClient
from fccl.transports.exchange.server import ExchangeTransport
from fccl.transports.protocol import RunIdentity

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch", "fccl.testing.processes"])


def exchange_spec(clients: int = 4, **changes: Any) -> ExchangeSpec:
    """Of a federation that loses no time: `changes` are fields of `ExchangeSpec`."""
    usual: dict[str, Any] = {"quorum": 1, "retries": 0, "timeout_s": 20.0, "stale_s": 30.0, "keep_rounds": 1}
    return ExchangeSpec(**({"num_clients": clients} | usual | changes))


def client(root: Path, client_id: int, learner: Learner | None = None, **changes: Any) -> None:
    """A client process's work; `changes` are arguments of `ExchangeClient`."""
    torch.set_num_threads(1)
    usual: dict[str, Any] = {"heartbeat_s": 0.5, "grace_s": 1.0}
    ExchangeClient(ExchangePaths(root), client_id, learner or ToyLearner(), shard, **(usual | changes)).run()


def orchestrator(root: Path, logs: Path, clients: int, rounds: int, pause_s: float = 0.0) -> None:
    """An orchestrator process's work: start the run or go on with it, commit every round, say that it is done."""
    torch.set_num_threads(1)
    fed, folder = federation(clients, rounds), RunFolder.at(logs)
    run = Run(fed, folder, lambda: START.adapter, identity=RunIdentity(fed.run_id))
    spec = exchange_spec(clients, stale_s=600.0, timeout_s=600.0)
    with ExchangeTransport(ExchangePaths(root), spec, folder.paths.received) as transport:
        for _ in run.rounds(transport, resume=folder.state() is not None):
            time.sleep(pause_s)
        run.finish(transport)


@contextmanager
def client_processes(
    root: Path, learners: Mapping[int, Learner], **changes: Any
) -> Iterator[dict[int, ForkServerProcess]]:
    """One process for each client; killed at the end, done or not. A learner travels by pickle."""
    processes = {
        number: CONTEXT.Process(target=client, args=(root, number, learner), kwargs=changes, daemon=True)
        for number, learner in learners.items()
    }
    try:
        for process in processes.values():
            process.start()
        yield processes
    finally:
        for process in processes.values():
            process.kill()
            process.join()
