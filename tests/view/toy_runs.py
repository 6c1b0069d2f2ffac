"""Real runs of the toy federation on the disk, and whether two views of a run say the same."""

import time
from dataclasses import fields

import pandas as pd

from fccl.federation.run_folder import RunFolder
from fccl.records.journal import Journal
from fccl.records.run import ClientMetrics, RunEvent, RunInfo
from fccl.testing.toy import START, federation, shard
from fccl.transports.in_process import InProcessTransport
from fccl.transports.protocol import Listener, RunIdentity
from tests.view.logs import BASE

INFO = RunInfo(run_id="run", created=1.0, settings={"num_clients": "4"}, data_sha256="", versions={})
TABLES = ("rounds", "shares", "exclusions", "declines", "metrics")


def same(one, other, but=()):
    """Whether two views say the same; `furthest`, `heard` and `written` are what each reader has seen on its way."""
    for field in fields(one):
        first, second = getattr(one, field.name), getattr(other, field.name)
        if field.name in TABLES:
            pd.testing.assert_frame_equal(first, second)
        elif field.name not in ("furthest", "heard", "written", *but):
            assert first == second, field.name


def toy_run(paths, learner, stop=99, resume=False):
    """A real run of the toy federation on the disk, with metrics and heartbeats as the application writes them."""
    folder, fed = RunFolder(paths, Journal(paths)), federation()
    state = folder.resume() if resume else folder.start(INFO, fed.plan, START.adapter)
    event = "resumed" if resume else "started"
    folder.journal.write(
        RunEvent(
            event=event, run_id="run", time=time.time(), round=state.next_round, validation=None if resume else BASE
        )
    )
    transport = InProcessTransport(learner, shard)
    transport.begin(RunIdentity("run"), Listener(folder.journal.heartbeat))
    for result in fed.run(state, transport):
        for update in result.updates:
            moved = update.adapter.load().distance(state.adapter)
            metrics = update.contribution.model_dump() | update.report.model_dump() | {"update_norm": moved}
            folder.journal.write(
                ClientMetrics(
                    run_id="run",
                    time=time.time(),
                    round=update.round,
                    phase=update.phase,
                    client_id=update.client_id,
                    **metrics,
                )
            )
        folder.commit(result, fed.plan)
        state = result.state
        if state.next_round == stop:
            break
    return folder


FILES = ("run", "state", "progress", "client_metrics", "manifest", "evaluation_json")
