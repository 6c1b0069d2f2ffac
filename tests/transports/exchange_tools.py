"""What the tests of the exchange directory share: clients in threads, answers that are spoilt before the server
looks."""

import json
import os
import time
from contextlib import contextmanager

import safetensors.torch
import torch

from fccl.records.rejection import Rejection
from fccl.testing.toy import ToyLearner, shard
from fccl.testing.transport import task
from fccl.transports.exchange.client import ExchangeClient
from fccl.transports.exchange.wire import AdapterFile
from fccl.transports.protocol import Listener, RunIdentity
from tests.transports.exchange.test_server_contract import client_threads, finish_after


def fit(transport, asked=(0, 1), number=0):
    return {answer.client_id: answer for answer in transport.ask(task(number), asked)}


def until(happened, seconds=60):
    """Wait for what happens in another thread; an error where it does not."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it has not happened"
        time.sleep(0.01)


@contextmanager
def clients(paths, learners, **changes):
    with client_threads(paths.root, learners, grace_s=0.0, **changes) as started:
        yield started


def finish(transport):
    finish_after(transport, transport.rounds_of("run").paths)


def answered(paths, transport, spoil, asked=(0, 1), keys=None, **spec):
    """The answers to a round in which client 1's committed files are spoilt before the server looks.

    All is there before the first look, and a look comes before the deadline is: it can be short.
    """
    told = []
    with transport(**({"timeout_s": 0.01} | spec)) as exchange:
        exchange.begin(RunIdentity("run"), Listener(line=told.append))
        opened = exchange.open(task(), asked)
        learner = ToyLearner()
        for number in asked:
            client = ExchangeClient(paths, number, learner, shard, keys=keys)
            client.commit(opened, learner.fit(task(), shard(number), lambda status: None))
        spoil(paths, opened)
        found = fit(exchange, asked)
        reasons = [
            Rejection.model_validate_json(path.read_text()) for path in sorted(paths.rejected.glob("*_reason.json"))
        ]
        assert reasons == exchange.quarantine.rejections
    return found, reasons


def edit(changes, client_id=1):
    def spoil(paths, opened):
        path = paths.contribution(client_id, 0)
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return spoil


def replace(kind, content):
    def spoil(paths, opened):
        path = getattr(paths, kind)(1, 0)
        path.unlink()
        path.write_bytes(content)

    return spoil


def linked(kind):
    def spoil(paths, opened):
        path = getattr(paths, kind)(1, 0)
        outside = paths.root.parent / "outside"
        path.rename(outside)
        path.symlink_to(outside)

    return spoil


def pipe(paths, opened):
    paths.contribution(1, 0).unlink()
    os.mkfifo(paths.contribution(1, 0))


def folder(paths, opened):
    paths.update(1, 0).unlink()
    paths.update(1, 0).mkdir()


def huge(paths, opened):
    with open(paths.update(1, 0), "r+b") as file:
        file.truncate(10**9)


def with_nan():
    return safetensors.torch.save({"w": torch.tensor([0.0, float("nan"), 0.0])})


def named(kind, content):
    """The edit of a contribution that names this file, so that its hash and its length are right."""
    return edit({kind: AdapterFile.of(content).model_dump()})
