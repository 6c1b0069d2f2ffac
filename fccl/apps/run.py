"""`fccl run`: a whole federation in this process."""

from __future__ import annotations

import argparse

from fccl.apps.console import plain_console, telling
from fccl.apps.output import terminate_as_interrupt
from fccl.apps.run_setup import prepared_run
from fccl.config import Settings
from fccl.data.shards import load_shard
from fccl.federation.run_folder import RunFolder
from fccl.library.narrow import recorded_settings, settled
from fccl.library.places import require_apart
from fccl.model.loading import Models
from fccl.training.engines import learner_for
from fccl.transports.in_process import InProcessTransport


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Run or resume, then evaluate. Returns the exit status."""
    console, folder = plain_console(), RunFolder.at(settings.log_dir)
    if options.resume:
        settings = recorded_settings(folder, settings, options.given)
    else:
        settings = settled(settings, telling(console), options.given)
    require_apart(settings, ("data_dir", "log_dir"))
    models, place = Models(), folder.held(folder.info())
    learner = learner_for(models, settings.client_ranks)
    with prepared_run(settings, console, folder, models, "`fccl run --resume` goes on", place) as command:
        in_process = InProcessTransport(learner, lambda client: load_shard(command.data, client, command.manifest))
        with terminate_as_interrupt(), in_process as transport:
            command.conduct(transport, options.resume)
    return 0
