"""`fccl client`: one client of a federation that is run over an exchange directory. It ends when the run is done."""

from __future__ import annotations

import argparse

from fccl.apps.client_screen import ClientScreen
from fccl.apps.console import plain_console, telling
from fccl.apps.output import terminate_as_interrupt
from fccl.config import Settings
from fccl.library.client import FOLDERS, exchange_client, own_files, require_own_rank
from fccl.library.places import require_apart
from fccl.model.gpus import take_own_gpu
from fccl.transports.protocol import Listener


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Train whenever the server asks for it. Returns the exit status."""
    require_own_rank(settings)
    require_apart(settings, FOLDERS)
    own = own_files(settings, options.given)
    if options.leave:
        return _leave(settings)
    gpu = take_own_gpu(settings.client_id)
    with (
        terminate_as_interrupt(),
        ClientScreen(plain_console(), settings.client_id) as screen,
        exchange_client(settings, Listener(screen.status, screen.tell), own=own) as client,
    ):
        if gpu:
            screen.tell(gpu)
        screen.tell(f"waiting for rounds in {settings.exchange_dir}/")
        client.run()
        screen.tell("the run is done")
    return 0


def _leave(settings: Settings) -> int:
    """Say that the client leaves. Returns the exit status."""
    console = plain_console()
    with exchange_client(settings, Listener(line=telling(console))) as client:
        run_id = client.leave()
    said = f"Client {settings.client_id} leaves run {run_id}: nobody waits for it. Started again, it joins again."
    console.print(said, highlight=False, soft_wrap=True)
    return 0
