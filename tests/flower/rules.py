"""Several runs of real models, one after the other, over one deployment and in one process.

The ServerApp is here, and the commands of the other two parties: the runs in one process, and a site's worker.

    python -m tests.flower.rules alone FOLDER
    python -m tests.flower.rules worker 0 FOLDER
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import fccl
from fccl.apps.arguments import parse
from fccl.apps.flower_server import awaited, flower_transport
from fccl.apps.main import main
from fccl.apps.orchestration import orchestrate
from fccl.apps.output import guarded_output
from fccl.config import load_settings
from fccl.paths import LogPaths
from fccl.storage.files import write_text
from fccl.transports.flower.bundle import REQUEST
from fccl.transports.flower.server_app import Grid, server_app

RUNS: Mapping[str, tuple[str, ...]] = {
    "robust": ("--aggregation", "median"),
    "optimiser": ("--aggregation", "fedadam"),
    "exact": ("--lora-aggregation", "exact"),
    "codec": ("--update-codec", "topk"),
}
PATIENT = ("--client-timeout-s", "600", "--heartbeat-stale-s", "300")  # nobody is given up on a busy machine


def logs(folder: Path, way: str, name: str) -> LogPaths:
    """The log folder of a run, `alone` or over `flower`."""
    return LogPaths(folder / f"{way}_{name}")


def data(folder: Path) -> str:
    """The data of all runs."""
    return str(folder / "data")


def alone(folder: Path) -> int:
    """Every run in this process. Returns the exit status."""
    for name, arguments in RUNS.items():
        where = ("--log-dir", str(logs(folder, "alone", name).root), "--data-dir", data(folder))
        if status := main(["run", "--fed-rounds", "1", *arguments, *where]):
            return status
    return 0


def worker(client_id: int, folder: Path) -> None:
    """A site's worker for one run after the other."""
    own = {"exchange_dir": folder / f"site_{client_id}", "state_dir": folder / f"state_{client_id}"}
    while True:
        fccl.Client(client_id=client_id, data_dir=data(folder), **own).run()


def outcome(folder: Path) -> Path:
    """The file that the ServerApp writes in the end: nothing, or its traceback."""
    return folder / "rules_outcome.txt"


def serve(grid: Grid, config: Mapping[str, object]) -> None:
    """Every run over this grid."""
    folder, said = Path(str(config[REQUEST])).parent, ""
    try:
        for name, arguments in RUNS.items():
            over_flower(grid, folder, name, arguments)
    except BaseException:
        said = traceback.format_exc()
        raise
    finally:
        write_text(outcome(folder), said)


def over_flower(grid: Grid, folder: Path, name: str, arguments: tuple[str, ...]) -> None:
    """One run, as `fccl flower run` would have its ServerApp do it."""
    where = ("--log-dir", str(logs(folder, "flower", name).root), "--data-dir", data(folder))
    own = (*where, "--exchange-dir", str(folder / f"exchange_{name}"))
    given, options = parse("orchestrator", ["--fed-rounds", "1", *arguments, *PATIENT, *own])
    options.given = given
    with guarded_output():
        orchestrate(load_settings(given), options, partial(flower_transport, grid, None), awaited)


app = server_app(serve)

if __name__ == "__main__":
    if sys.argv[1] == "alone":
        sys.exit(alone(Path(sys.argv[2])))
    worker(int(sys.argv[2]), Path(sys.argv[3]))
