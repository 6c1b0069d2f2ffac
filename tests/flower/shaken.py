"""The ServerApp of the network's tests: toy federations, and what became of each in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fccl.paths import ExchangePaths
from fccl.storage.files import write_text
from fccl.testing.processes import exchange_spec
from fccl.testing.toy import START, federation
from fccl.transports.flower.bundle import REQUEST
from fccl.transports.flower.server_app import Grid, server_app
from fccl.transports.flower.transport import FlowerTransport

SITES = 3
LOST_S = 20.0


def server(place: Path) -> ExchangePaths:
    """The server's exchange directory."""
    return ExchangePaths(place / "server")


def serve(grid: Grid, config: Mapping[str, object]) -> None:
    """A federation that waits for everybody, then one that waits for three times as long as the first one's first
    round took: an idle machine and a busy one differ by a factor of ten."""
    folder = Path(str(config[REQUEST])).parent
    took_s = conduct(grid, folder / "patient", 2, 3600.0)
    conduct(grid, folder / "brief", 1, 3 * took_s)


def conduct(grid: Grid, place: Path, rounds: int, timeout_s: float) -> float:
    """A federation of SFT rounds alone. Its workers are not told the end: they are the next one's too.

    Returns the seconds of its first round.
    """
    fed = replace(federation(SITES, rounds, sft_rounds=rounds, va_rounds=0), run_id=place.name)
    spec = exchange_spec(SITES, timeout_s=timeout_s, stale_s=3600.0)
    with FlowerTransport(grid, server(place), spec, place / "received", lost_s=LOST_S) as transport:
        results = list(fed.run(START, transport))
    excluded = [(each.record.round, out.client_id, out.reason) for each in results for out in each.record.excluded]
    said = {"adapter": results[-1].state.adapter.to_bytes().hex(), "excluded": excluded}
    write_text(place / "outcome.json", json.dumps(said))
    return results[0].record.seconds


app = server_app(serve)
