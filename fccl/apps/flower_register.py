"""`fccl flower register`: makes the node keys of a bundle known to its SuperLink, which then lets those nodes in."""

from __future__ import annotations

import argparse
import json
import tempfile
from contextlib import suppress
from pathlib import Path

from fccl.apps.console import say
from fccl.apps.flower_superlink import SuperLink
from fccl.display.plain_text import printable
from fccl.display.words import plural
from fccl.errors import FederationError, SettingsError
from fccl.paths import ServerPaths
from fccl.transports.flower.node_keys import read_node_keys

_KNOWN = "already in use"  # Flower's words for a key that is registered


def register(options: argparse.Namespace) -> int:
    """Register every key that is not registered yet. Returns the exit status."""
    if not options.bundle:
        raise SettingsError("fccl flower register needs --bundle", hint="the folder `server` of `fccl flower init`")
    paths = ServerPaths(Path(options.bundle))
    clients = sorted(read_node_keys(paths.nodes))
    superlink = SuperLink(options.superlink, str(paths.ca))
    superlink.wait(60.0 if options.wait is None else options.wait, say)
    new = [client for client in clients if _is_new(superlink, paths.node(client))]
    known = f", {len(clients) - len(new)} were known already" if len(new) < len(clients) else ""
    say(f"Registered at {superlink.address}: the node keys of {plural(len(new), 'site')}{known}.")
    return 0


def _is_new(superlink: SuperLink, key: Path) -> bool:
    """Register a key; says whether it was not registered before. Raises `FederationError` when it is not taken."""
    with tempfile.TemporaryDirectory(prefix="fccl-flower-") as folder:
        done = superlink.call(Path(folder), ["supernode", "register", str(key)], quiet=True)
    said = _said(done.stdout)
    if said.get("success") is True:
        return True
    reason = str(said.get("error-message") or done.stderr or done.stdout).strip()
    if _KNOWN in reason:
        return False
    raise FederationError(
        f"the SuperLink at {superlink.address} has not taken {key.name}: {printable(reason, 300)}",
        hint="its own output says more",
    )


def _said(text: str) -> dict[str, object]:
    with suppress(ValueError):
        found = json.loads(text)
        return found if isinstance(found, dict) else {}
    return {}
