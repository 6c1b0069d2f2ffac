"""`fccl audit`: canaries planted in one client's data, and attacks on what a federation then releases."""

from __future__ import annotations

import argparse

from fccl.apps.console import plain_console, say, telling
from fccl.apps.data_screen import DataScreen
from fccl.apps.terminal_tables import print_table
from fccl.config import Settings
from fccl.federation.run_folder import RunFolder
from fccl.library.audit import audited
from fccl.library.narrow import arranged, begun, settled
from fccl.library.natural import require_shards, with_named_clients
from fccl.library.places import require_apart
from fccl.library.setup import workable
from fccl.library.side_by_side import side_by_side
from fccl.model.loading import Models
from fccl.paths import LogPaths
from fccl.storage.files import write_text
from fccl.view.audit_tables import audit_table, closed_lines


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Run a federation of its own, attack it, print and write the result. Returns the exit status."""
    console, models = plain_console(), Models()
    tell = telling(console)
    settings = begun(settled(settings, tell, options.given), tell)
    require_apart(settings, ("data_dir", "log_dir"))
    require_shards(settings)
    settings = side_by_side(with_named_clients(settings, DataScreen(console)), options.given)
    workable(settings, RunFolder.at(settings.log_dir))
    if settings.clients_at_once != "1":
        settings = arranged(settings, models.of(settings.model_spec()).engine)
    audit = audited(settings, models, say, options.client)
    print_table(console, audit_table(audit))
    for line in closed_lines(audit):
        say(line)
    out = LogPaths(settings.log_dir).audit
    write_text(out, audit.model_dump_json(indent=1) + "\n")
    say(f"Wrote {out}; the report and the dashboard of the run in {settings.log_dir}/ show it too.")
    return 0
