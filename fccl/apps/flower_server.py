"""The ServerApp that `fccl flower run` starts: `fccl orchestrator`, whose exchange directory Flower carries on."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from fccl.apps.flower_request import FlowerOutcome, FlowerRequest, outcome_file, read_request, write_value
from fccl.apps.orchestration import orchestrate
from fccl.apps.output import guarded_output
from fccl.config import Settings, load_settings
from fccl.errors import FcclError, StorageError
from fccl.federation.run_folder import RunFolder
from fccl.keys import server_keys
from fccl.library.data import Tell
from fccl.paths import ExchangePaths, KeyPaths
from fccl.transports.flower.bundle import REQUEST
from fccl.transports.flower.node_keys import NodeKeys, read_node_keys
from fccl.transports.flower.server_app import Grid, server_app
from fccl.transports.flower.transport import FlowerTransport


def serve(grid: Grid, config: Mapping[str, object]) -> None:
    """Run the federation that the request asks for. The outcome is written beside it; an error is raised as well, so
    that Flower's run has failed too."""
    path = Path(str(config[REQUEST]))
    request = read_request(path)
    request.enter()
    _tell(path, FlowerOutcome(pid=os.getpid()))
    try:
        with guarded_output():
            _tell(path, FlowerOutcome(status=_run(grid, request)))
    except FcclError as error:
        _tell(path, FlowerOutcome(status=1, error=str(error), hint=error.hint))
        raise


def _run(grid: Grid, request: FlowerRequest) -> int:
    options = argparse.Namespace(given=request.given, resume=request.resume, new=request.new, redo_va=request.redo_va)
    node_keys = read_node_keys(Path(request.nodes)) if request.nodes else None
    return orchestrate(load_settings(request.given), options, partial(flower_transport, grid, node_keys), awaited)


def _tell(request: Path, outcome: FlowerOutcome) -> None:
    """Write how far the run is, unless the folder has gone with whoever asked: the run is in LOG_DIR either way."""
    with suppress(StorageError):
        if request.parent.is_dir():
            write_value(outcome_file(request), outcome)


def flower_transport(
    grid: Grid, node_keys: NodeKeys | None, settings: Settings, folder: RunFolder, tell: Tell
) -> FlowerTransport:
    """The server's side of the exchange directory with Flower behind it, signed where the settings name keys."""
    keys = server_keys(KeyPaths(Path(settings.keys_dir))) if settings.keys_dir else None
    if keys and keys.warning:
        tell(keys.warning)
    paths, logs, spec = ExchangePaths(Path(settings.exchange_dir)), folder.paths, settings.exchange_spec()
    plan = settings.round_plan()
    last = frozenset(filter(plan.ends_phase, range(plan.total_rounds)))
    return FlowerTransport(
        grid, paths, spec, logs.received, keys, node_keys=node_keys, sites=logs.sites, last_rounds=last
    )


def awaited(settings: Settings) -> str:
    """A line on the sites that a run of these settings waits for."""
    return (
        f"Sites of clients 0 to {settings.num_clients - 1} are awaited: each a SuperNode with --node-config "
        "'client-id=I exchange-dir=\"FOLDER\"', and `fccl client --client-id I --exchange-dir FOLDER` beside it."
    )


app = server_app(serve)
