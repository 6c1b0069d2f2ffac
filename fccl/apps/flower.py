"""`fccl flower`: a federation whose clients are sites on other machines, with Flower between them.

`init` makes certificates and keys, a folder for each party. `register` makes the sites' node keys known to the
SuperLink. `run` gives the run to it, on its own host: the ServerApp works there, in this folder, with these settings.
It shows what the ServerApp says, and ends with it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fccl.apps.console import say
from fccl.apps.flower_init import init
from fccl.apps.flower_register import register
from fccl.apps.flower_request import FlowerRequest, awaited_outcome, read_outcome, write_value
from fccl.apps.flower_superlink import SuperLink
from fccl.config import Settings
from fccl.errors import FederationError, SettingsError
from fccl.extras import require_extra
from fccl.paths import ServerPaths

_OPTIONS: Mapping[str, frozenset[str]] = {
    "init": frozenset({"sites", "hosts", "port", "out", "add", "renew", "superlink"}),
    "register": frozenset({"bundle", "superlink", "wait"}),
    "run": frozenset({"bundle", "superlink", "wait", "root_certificates", "resume", "redo_va", "new"}),
}
_ALL = frozenset[str]().union(*_OPTIONS.values())
_SUPERLINK = "127.0.0.1:8000"


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Do what the action says. Returns the exit status."""
    _require_own(options)
    options.superlink = options.superlink or _SUPERLINK
    if options.action == "init":
        return init(options, settings.num_clients)
    require_extra("flower", "fccl flower")
    if options.action == "register":
        return register(options)
    return _run(settings, options)


def _require_own(options: argparse.Namespace) -> None:
    """Refuse arguments of another action."""
    action = options.action
    given = [name for name in sorted(_ALL - _OPTIONS[action]) if getattr(options, name)]
    settings = sorted(set(options.given) - {"num_clients"}) if action != "run" else []
    for name in (*given, *settings):
        raise SettingsError(
            f"fccl flower {action} does not read --{name.replace('_', '-')}",
            hint="leave it out; `fccl flower --help` lists the arguments of each action",
        )


def _run(settings: Settings, options: argparse.Namespace) -> int:
    _require_signers(settings)
    bundle = ServerPaths(Path(options.bundle).absolute()) if options.bundle else None
    certificate = options.root_certificates or (str(bundle.ca) if bundle else "")
    superlink = SuperLink(options.superlink, str(Path(certificate).absolute()) if certificate else "")
    superlink.wait(60.0 if options.wait is None else options.wait, say)
    asked: dict[str, Any] = {name: getattr(options, name) for name in ("resume", "new", "redo_va")}
    given = dict(options.given)
    if bundle:
        asked["nodes"] = str(bundle.nodes)
        if not settings.keys_dir:
            given["keys_dir"] = str(bundle.keys.root)
    return _outcome(superlink, FlowerRequest.here(given, **asked))


def _outcome(superlink: SuperLink, asked: FlowerRequest) -> int:
    """Give the run to the SuperLink and wait for its end. Returns the ServerApp's exit status."""
    from fccl.transports.flower.bundle import write_bundle

    with tempfile.TemporaryDirectory(prefix="fccl-flower-") as text:
        folder = Path(text)
        request, app = folder / "request.json", folder / "app"
        write_value(request, asked)
        write_bundle(app, request)
        if superlink.call(folder, ["run", str(app)]).returncode and read_outcome(request) is None:
            raise FederationError(
                "the SuperLink has not taken the run",
                hint="what Flower says is above; a SuperLink is started with `flower-superlink`",
            )
        outcome = awaited_outcome(request)
    if outcome.error:
        raise FederationError(outcome.error, hint=outcome.hint)
    return outcome.status


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
