"""A run whose clients are other processes, on the console, whatever carries its requests to them.

Started again with the same settings it goes on with the run in `LOG_DIR`, and does nothing when that is finished. After
a crash it can simply be started again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Protocol

from fccl.apps.console import plain_console, telling
from fccl.apps.data_screen import DataScreen
from fccl.apps.output import terminate_as_interrupt
from fccl.apps.run_setup import conduct, shown_run
from fccl.config import Settings
from fccl.federation.run import new_run
from fccl.federation.run_folder import RunFolder
from fccl.library.data import Tell
from fccl.library.narrow import begun, each_alone, recorded_settings, rounds_asked, settled
from fccl.library.natural import with_named_clients
from fccl.library.orchestrator import FOLDERS, OTHER_PROCESSES, require_peers
from fccl.library.places import require_apart
from fccl.library.setup import workable
from fccl.library.standing import standing
from fccl.model.loading import Models
from fccl.transports.protocol import RunIdentity, Transport


class DirectoryTransport(Transport, Protocol):
    """A transport that holds the server's exchange directory."""

    def require_here(self) -> None:
        """Raises `StorageError` when the directory is gone."""
        ...


def orchestrate(
    settings: Settings,
    options: argparse.Namespace,
    transport_of: Callable[[Settings, RunFolder, Tell], DirectoryTransport],
    awaited: Callable[[Settings], str],
) -> int:
    """Run, or go on with the run that is here; then evaluate. Returns the exit status.

    `awaited` is the line that says which clients are to be started.
    """
    console = plain_console()
    settings = each_alone(settled(settings, telling(console), options.given), options.given, OTHER_PROCESSES)
    folder = RunFolder.at(settings.log_dir)
    require_apart(settings, FOLDERS)
    settings = settings if options.resume else with_named_clients(settings, DataScreen(console))
    seen, here = folder.info(), "other" if options.new else standing(folder, settings)
    if here == "finished" and not options.resume:
        where = (
            f"The run in {folder.paths.root}/ has these settings and is finished. --new begins another, and keeps "
            "this one in runs/."
        )
        console.print(where, highlight=False, soft_wrap=True)
        return 0
    if resume := options.resume or here == "unfinished":
        settings = recorded_settings(folder, settings, options.given)
    else:
        settings = begun(settings, telling(console))
    other = rounds_asked(folder, settings, resume, options.redo_va)
    require_peers(settings)
    held = transport_of(settings, folder, telling(console))
    tracker = workable(settings, folder)  # before anything is cleared away
    with terminate_as_interrupt(), held as transport, folder.held(seen):
        identity = RunIdentity(seen.run_id, seen.created) if resume and seen is not None else new_run()
        transport.begin(identity)  # before the model is there: an idle client would take an earlier run's end for ours
        model, way_on = Models().of(settings.model_spec()), "Start the orchestrator again to go on"
        with shown_run(settings, folder, model, tracker, console, way_on, identity, other) as prepared:
            prepared.run.listener.told(awaited(settings))
            conduct(prepared, transport, resume, console)
            transport.require_here()
    return 0
