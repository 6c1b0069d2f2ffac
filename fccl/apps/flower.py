"""`fccl flower run`: a federation whose clients are sites on other machines, with Flower between them.

It gives the run to a SuperLink, on whose host it is called: the ServerApp works there, in this folder, with these
settings. It shows what the ServerApp says, and ends with it.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from fccl.apps.flower_request import FlowerRequest, awaited_outcome, read_outcome, write_value
from fccl.config import Settings
from fccl.errors import FederationError, SettingsError
from fccl.extras import require_extra
from fccl.storage.files import write_text

_CONNECTION = "fccl"  # the name of our SuperLink in the configuration that we write for Flower
_CALL = "import sys; from flwr.cli.app import app; sys.argv[0] = 'flwr'; app()"


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Give the run to the SuperLink and wait for its end. Returns the exit status."""
    require_extra("flower", "fccl flower")
    _require_signers(settings)
    connection = _connection(options)
    with tempfile.TemporaryDirectory(prefix="fccl-flower-") as text:
        folder = Path(text)
        request = folder / "request.json"
        asked = {name: getattr(options, name) for name in ("resume", "new", "redo_va")}
        write_value(request, FlowerRequest.here(options.given, **asked))
        if _submit(folder, request, connection) and read_outcome(request) is None:
            raise FederationError(
                "the SuperLink has not taken the run",
                hint="what Flower says is above; a SuperLink is started with `flower-superlink`",
            )
        outcome = awaited_outcome(request)
    if outcome.error:
        raise FederationError(outcome.error, hint=outcome.hint)
    return outcome.status


def _submit(folder: Path, request: Path, connection: dict[str, object]) -> int:
    """Give the app to the SuperLink, and show what the ServerApp says until it ends. Returns Flower's exit status."""
    from fccl.transports.flower.bundle import write_bundle
    from fccl.transports.flower.quiet import QUIET

    home, app = folder / "home", folder / "app"
    home.mkdir()
    lines = [f"{name} = {json.dumps(value)}" for name, value in connection.items()]
    head = f'[superlink]\ndefault = "{_CONNECTION}"\n\n[superlink.{_CONNECTION}]\n'
    write_text(home / "config.toml", head + "\n".join(lines) + "\n")
    write_bundle(app, request)
    command = [sys.executable, "-c", _CALL, "run", str(app), _CONNECTION, "--stream"]
    return subprocess.run(command, env=os.environ | QUIET | {"FLWR_HOME": str(home)}, check=False).returncode


def _connection(options: argparse.Namespace) -> dict[str, object]:
    """The SuperLink as Flower's configuration names it. Without TLS it must be on this host."""
    if options.root_certificates:
        path = Path(options.root_certificates).absolute()
        if not path.is_file():
            raise SettingsError(f"{path} is not there", hint="--root-certificates names the certificate of the CA")
        return {"address": options.superlink, "root-certificates": str(path)}
    if not _is_here(options.superlink):
        raise SettingsError(
            f"the SuperLink at {options.superlink} is on another host, and nothing would be encrypted",
            hint="name the CA's certificate with --root-certificates, or call this on the SuperLink's own host",
        )
    return {"address": options.superlink, "insecure": True}


def _is_here(address: str) -> bool:
    """Whether an address is one of this host's own loopback."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _require_signers(settings: Settings) -> None:
    if settings.original_client_ids:
        raise SettingsError(
            f"ORIGINAL_CLIENTS={settings.original_clients}: peers that know only the original files are not reached "
            "by Flower",
            hint="leave it out, or use `fccl orchestrator`",
        )
    if settings.open:
        raise SettingsError(
            "OPEN=true: over Flower the members are fixed, for sites' statements do not travel",
            hint="leave it out, or use `fccl orchestrator`",
        )
