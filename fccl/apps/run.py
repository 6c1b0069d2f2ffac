"""`fccl run`: a whole federation, its clients in this process or in several beside each other."""

from __future__ import annotations

import argparse

from fccl.apps.console import plain_console, telling
from fccl.apps.data_screen import DataScreen
from fccl.apps.output import terminate_as_interrupt
from fccl.apps.run_setup import conduct, shown_run
from fccl.config import Settings
from fccl.federation.run_folder import RunFolder
from fccl.library.narrow import arranged, begun, recorded_settings, rounds_asked, settled
from fccl.library.natural import require_shards, with_named_clients
from fccl.library.places import require_apart
from fccl.library.setup import workable
from fccl.library.side_by_side import side_by_side, transport_for
from fccl.model.loading import Models
from fccl.training.engines import learner_for


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Run or resume, then evaluate. Returns the exit status."""
    console, folder = plain_console(), RunFolder.at(settings.log_dir)
    if options.resume:
        settings = recorded_settings(folder, settings, options.given)
    else:
        settings = begun(settled(settings, telling(console), options.given), telling(console))
    other = rounds_asked(folder, settings, options.resume, options.redo_va)
    require_apart(settings, ("data_dir", "log_dir"))
    require_shards(settings)
    settings = settings if options.resume else with_named_clients(settings, DataScreen(console))
    settings = side_by_side(settings, options.given)
    seen, tracker, models = folder.info(), workable(settings, folder), Models()
    learner, way_on = learner_for(models, settings.client_ranks), "`fccl run --resume` goes on"
    if not options.resume and settings.clients_at_once != "1":
        settings = arranged(settings, models.of(settings.model_spec()).engine)
    with transport_for(settings, learner, lambda: prepared, options.launch, models) as transport, folder.held(seen):
        model = models.of(settings.model_spec())  # beside the processes that do the same
        screen = shown_run(settings, folder, model, tracker, console, way_on, other_rounds=other)
        with screen as prepared, terminate_as_interrupt():
            conduct(prepared, transport, options.resume, console)
    return 0
