"""Texts of a deployment's folders: the commands of each host to copy and paste, and the proxy's configuration."""

from __future__ import annotations

import shlex
from pathlib import Path

from fccl.apps.templates import filled
from fccl.transports.flower.quiet import FAST, QUIET

_NODE_PORT = 9094  # of the first SuperNode of a host; it is open on loopback alone


def site_text(client_id: int, address: str, until: str) -> str:
    """The README of a site. `address` is where its SuperNode finds the proxy."""
    blanks = {
        "number": client_id,
        "address": shlex.quote(address),
        "port": _NODE_PORT + client_id % 1000,
        "until": until,
    }
    return filled("flower_site.txt", {**blanks, **_exports()})


def server_text(root: Path, superlink: str, port: int, sites: int, until: str) -> str:
    """The README of the server's host, on which the deployment's folder is `root`."""
    host, _, superlink_port = superlink.rpartition(":")
    blanks = {
        "tls": shlex.quote(str(root / "superlink")),
        "server": shlex.quote(str(root / "server")),
        "host": host.strip("[]"),
        "superlink": shlex.quote(superlink),
        "superlink_port": superlink_port,
        "port": port,
        "sites": sites,
        "until": until,
    }
    return filled("flower_server.txt", {**blanks, **_exports()})


def proxy_text(superlink: str, port: int) -> str:
    """The configuration of an nginx that lets only SuperNodes' calls through to the SuperLink."""
    return filled("nginx.conf", {"superlink": superlink, "port": port})


def _exports() -> dict[str, str]:
    """Flower's variables as one line of a shell, the simulation's left out."""
    variables = {name: value for name, value in {**QUIET, **FAST}.items() if name.startswith("FLWR_")}
    lines = [f"    export {name}={value}" for name, value in variables.items()]
    return {"exports": "\n".join(lines)}
