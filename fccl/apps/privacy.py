"""`fccl privacy`: the privacy that the run in `LOG_DIR` has spent, or one client by its own ledger."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich.console import Console

from fccl.apps.console import plain_console
from fccl.apps.terminal_tables import print_table
from fccl.config import Settings
from fccl.display.tables import Table
from fccl.errors import FederationError, no_run
from fccl.extras import require_extra
from fccl.paths import LogPaths, StatePaths
from fccl.privacy.spec import Unit
from fccl.privacy.spent import NAME, Release, Spent, epsilon_of


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Print the ledger: of the run, or with --client-id of that client in STATE_DIR. Returns the exit status."""
    console = plain_console()
    if "client_id" in options.given:
        return _of_client(settings, console)
    from fccl.view.privacy import clients_table, rounds_table
    from fccl.view.runs import RunReader

    view = RunReader(LogPaths(settings.log_dir)).refresh()
    if not view.exists:
        raise no_run(settings.log_dir, "read")
    if (table := rounds_table(view)) is None:
        where = view.info.settings.get("dp_where", "none") if view.info else "none"
        said = "no round of it is complete" if where != "none" else "it has none (DP_WHERE=none)"
        console.print(f"Differential privacy of the run in {settings.log_dir}: {said}.", soft_wrap=True)
        return 0
    for each in filter(None, (table, clients_table(view))):
        print_table(console, each)
    return 0


def _of_client(settings: Settings, console: Console) -> int:
    folder = StatePaths(settings.state_dir).client(settings.client_id)
    if not (folder / NAME).is_file():
        raise FederationError(
            f"{folder} has no ledger: no noised update has left this client", hint="--state-dir says where it lies"
        )
    require_extra("privacy", "the ledger")
    print_table(console, _own_table(Spent(folder).releases, settings.dp_delta))
    return 0


def _own_table(releases: list[Release], delta: float) -> Table:
    by_run: dict[str, list[Release]] = {}
    for release in releases:
        by_run.setdefault(release.run_id, []).append(release)
    rows = [_own_row(run_id, known, delta) for run_id, known in (*by_run.items(), ("all", releases))]
    note = (
        f"ε at δ = {delta:g} (PLD) of all updates that have left, whoever has asked for them: of the whole client "
        "(replace one), or of one of its examples (add or remove one)."
    )
    head = ("run", "unit", "updates", "ε")
    return Table("Privacy spent by this client", head, tuple(rows), note, words=frozenset({1}), last_is_sum=True)


def _own_row(name: str, releases: Sequence[Release], delta: float) -> tuple[str, ...]:
    unit: Unit = "example" if any(each.unit == "example" for each in releases) else "client"
    return name, unit, f"{len(releases):,}", f"{epsilon_of(releases, unit, delta):.3f}"
