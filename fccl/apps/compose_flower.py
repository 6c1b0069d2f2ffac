"""`docker-compose.flower.yml`: a SuperLink that nobody reaches from outside, a proxy before it, and sites behind that.

A site is two containers: its SuperNode, which sees the proxy and no data, and its worker, which sees data and has no
network.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fccl.apps.compose_parts import FIXED, INSIDE, MARK, MEMORY, PIDS_LIMIT, passed_settings, read_only, volumes
from fccl.apps.templates import filled
from fccl.config import Settings
from fccl.paths import DataPaths, FlowerPaths
from fccl.specs import PHASES
from fccl.transports.flower.quiet import FAST, QUIET

_FLOWER = FlowerPaths(Path("flower"))


def flower_file(clients: int) -> str:
    """The content of `docker-compose.flower.yml` for so many sites."""
    numbers = range(clients)
    started = [f"      {name}_{number}: {{condition: service_started}}" for number in numbers for name in _SERVICES]
    blanks = {
        **MEMORY,
        "pids_limit": PIDS_LIMIT,
        "mark": MARK,
        "clients": clients,
        "settings": "\n".join(_settings(clients)),
        "flower": "\n".join(f'  {name}: "{value}"' for name, value in sorted({**QUIET, **FAST}.items())),
        "prepare_volumes": volumes("data", "logs", "exchange", "models", "flower"),
        "tls_volumes": volumes("flower/superlink:ro"),
        "database_volumes": volumes("superlink"),
        "server_volumes": volumes("data:ro", "logs", "exchange", "models", "requests", "flower/server:ro"),
        "bundle_volumes": volumes("flower/server:ro"),
        "request_volumes": volumes("requests"),
        "dashboard_volumes": volumes("logs:ro", "exchange:ro"),
        "site_names": "\n".join(started),
        "site_services": "\n\n".join(map(_site, numbers)),
        "site_volumes": "\n".join(f"  {name}_{number}:" for number in numbers for name in ("site", "state")),
    }
    return filled("compose_flower.yml", blanks)


_SERVICES = ("supernode", "client")  # of a site


def _settings(clients: int) -> Iterator[str]:
    yield f"  NUM_CLIENTS: {clients} # so many sites are in this file; `prepare` refuses another number"
    yield from passed_settings(FIXED | {"open"})


def _site(number: int) -> str:
    site = _FLOWER.site(number)
    shard = read_only(*(DataPaths(Path("data")).shard(number, phase) for phase in PHASES))
    state = Settings.model_fields["state_dir"].default
    blanks = {
        "number": number,
        "node_volumes": volumes(*read_only(site.ca, site.node_key)),
        "client_volumes": volumes(*shard, *read_only(site.keys.client(number), site.keys.public), "models:ro"),
        "state": f"      - state_{number}:{INSIDE}/{state}",
    }
    return filled("compose_flower_site.yml", blanks).rstrip("\n")
