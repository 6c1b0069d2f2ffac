"""The ServerApp of the network's tests: toy federations, and what became of each in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fccl.errors import FcclError
from fccl.paths import ExchangePaths
from fccl.storage.files import write_text
from fccl.testing.processes import exchange_spec
from fccl.testing.toy import START, federation
from fccl.transports.flower.bundle import REQUEST
from fccl.transports.flower.courier import NODES_S
from fccl.transports.flower.server_app import Grid, server_app
from fccl.transports.flower.transport import FlowerTransport

SITES = 3
LOST_S = 20.0
GIVES_UP_S = 30.0  # after the SuperLink has seen that the SuperNode is gone


def server(place: Path) -> ExchangePaths:
    """The server's exchange directory."""
    return ExchangePaths(place / "server")


def serve(grid: Grid, config: Mapping[str, object]) -> None:
    """A federation that waits for everybody, then one that gives up a site without a SuperNode: no deadline of theirs
    is ever up, since a reset at a bad moment costs an answer a minute."""
    folder = Path(str(config[REQUEST])).parent
    conduct(grid, folder / "patient", 2, NODES_S)
    conduct(grid, folder / "brief", 1, GIVES_UP_S)


def conduct(grid: Grid, place: Path, rounds: int, nodes_s: float) -> None:
    """A federation of SFT rounds alone. Its workers are not told the end: they are the next one's too."""
    fed = replace(federation(SITES, rounds, sft_rounds=rounds, va_rounds=0), run_id=place.name)
    spec = exchange_spec(SITES, timeout_s=3600.0, stale_s=3600.0)
    try:
        with FlowerTransport(
            grid, server(place), spec, place / "received", nodes_s=nodes_s, lost_s=LOST_S
        ) as transport:
            results = list(fed.run(START, transport))
    except FcclError as error:  # the test waits for this file
        write_text(place / "outcome.json", json.dumps({"error": repr(error)}))
        raise
    excluded = [(each.record.round, out.client_id, out.reason) for each in results for out in each.record.excluded]
    said = {"adapter": results[-1].state.adapter.to_bytes().hex(), "excluded": excluded}
    write_text(place / "outcome.json", json.dumps(said))


app = server_app(serve)
