"""`fccl compose`: writes `docker-compose.yml` for any number of clients.

The committed file is what it writes for three.
"""

from __future__ import annotations

import argparse
import string
import sys
from collections.abc import Iterator
from pathlib import Path

from fccl.apps.console import say
from fccl.config import GROUPS, Settings, group_of
from fccl.errors import SettingsError
from fccl.paths import DataPaths, KeyPaths
from fccl.specs import PHASES
from fccl.storage.files import storage_errors, write_text

STANDARD_OUTPUT = "-"
MARK = "# Written by `fccl compose"
# What the file itself says: how many clients there are, which of them a container is, and where its folders are.
FIXED = frozenset(
    {"num_clients", "client_id", "data_dir", "exchange_dir", "log_dir", "keys_dir", "state_dir", "original_clients"}
)
# What is mounted where, below the folder in which a container works: a folder of the host, or a named volume.
INSIDE = "/fccl"
MOUNTS = {
    "data": "${DATA_DIR:-./data}",
    "logs": "${LOG_DIR:-./logs}",
    "keys": "${KEYS_DIR:-./keys}",
    "exchange": "${EXCHANGE_DIR:-exchange}",
    "models": "${MODELS_DIR:-models}",
}
# Measured for GPT-2 124M with the preset's batches; docs/docker.md has the table.
MEMORY = {"client_memory": "12g", "server_memory": "12g"}
PIDS_LIMIT = 1024  # for 64 cores and more: each of the libraries has a pool of its own


class _Blank(string.Template):
    """Compose has the dollar sign for itself."""

    delimiter = "@"


FILE = _Blank(
    """\
@mark --num-clients @clients@options`. docs/docker.md explains it.
#
#   docker-compose up --build                the federation, and the dashboard on http://localhost:8501 until you stop it
#   docker-compose up --build orchestrator   the federation alone; ends by itself
#
# `docker compose` does the same. Results are in ./logs. FED_ROUNDS=5 in the shell, or in .env beside this file, is a setting.
# When it ends at once, `docker-compose logs prepare` says why.

# Every setting that the shell or .env gives reaches the containers; one that they do not give has its default.
x-settings: &settings
@settings

x-hubs: &hubs # of models and data sets
  HF_TOKEN:
  HF_ENDPOINT:
  HTTP_PROXY:
  HTTPS_PROXY:
  NO_PROXY:

# Nothing of the image can be changed, and what is written is on a volume or, in /tmp, part of the memory that the container may take.
x-confined: &confined
  image: fccl
  init: true
  read_only: true
  tmpfs: ["/tmp:size=256m,mode=1777"]
  cap_drop: [ALL]
  security_opt: ["no-new-privileges:true"]
  pids_limit: @pids_limit # processes and threads; libraries start several for each core. No variable: docker-compose 1.29 takes only a number

x-container: &container
  <<: *confined
  user: ${FCCL_UID:-1000}:${FCCL_GID:-1000}
  restart: on-failure:10 # whatever has killed it; one that has ended well stays ended
  stop_grace_period: 30s

# A client sees its own files, the exchange directory and the base model, and has no network. Its state is for its eyes alone.
x-client: &client
  <<: *container
  command: [client]
  network_mode: none
  mem_limit: ${CLIENT_MEMORY:-@client_memory}
  depends_on:
    prepare: {condition: service_completed_successfully}
  healthcheck: {test: [CMD, healthy, client], interval: 30s, timeout: 5s, start_period: 60s}

services:
  # First, as root: gives the folders to the user that the others run as. Then, as that user: prepares the data, if there is none.
  prepare:
    <<: *confined
    build:
      context: .
      network: ${BUILD_NETWORK:-default}
      args:
        BASE_IMAGE: ${BASE_IMAGE:-python:3.11-slim}
        TORCH_INDEX: ${TORCH_INDEX-https://download.pytorch.org/whl/cpu}
    user: root
    cap_add: [CHOWN, DAC_OVERRIDE, KILL, SETGID, SETUID] # to give folders away, and then itself; KILL: init passes signals on
    entrypoint: [prepare]
    mem_limit: ${SERVER_MEMORY:-@server_memory}
    environment:
      <<: [*settings, *hubs]
      NUM_CLIENTS: ${NUM_CLIENTS:-@clients}
      CLIENT_SERVICES: @clients
      KEYS_WANTED: ${KEYS_DIR:-}
      FCCL_UID: ${FCCL_UID:-1000}
      FCCL_GID: ${FCCL_GID:-1000}
    volumes:
@prepare_volumes

  orchestrator:
    <<: *container
    command: [orchestrator]
    mem_limit: ${SERVER_MEMORY:-@server_memory}
    environment: {<<: [*settings, *hubs]}
    volumes:
@server_volumes
    depends_on:
      prepare: {condition: service_completed_successfully}
@client_names
    healthcheck: {test: [CMD, healthy, orchestrator], interval: 30s, timeout: 5s, start_period: 60s}

@client_services

  dashboard:
    <<: *container
    command: [dashboard, --host, 0.0.0.0]
    ports:
      - ${DASHBOARD_ADDRESS:-127.0.0.1}:${DASHBOARD_PORT:-8501}:8501
    mem_limit: 1g
    volumes:
@dashboard_volumes
    depends_on:
      prepare: {condition: service_completed_successfully}
    healthcheck: {test: [CMD, healthy, dashboard], interval: 30s, timeout: 5s, start_period: 30s}

volumes:
  exchange:
  models:
@state_volumes
"""
)

CLIENT = _Blank(
    """\
  client_@number:
    <<: *client
    environment: {<<: *settings, CLIENT_ID: @number}
    volumes:
@volumes"""
)


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Write the file, or print it. Returns the exit status."""
    originals = settings.exchange_spec().originals
    if originals and options.keys:
        raise SettingsError(
            f"--keys does not go with ORIGINAL_CLIENTS={settings.original_clients}: they sign nothing",
            hint="leave one of the two out",
        )
    content = compose_file(settings.num_clients, options.keys, originals)
    if options.out == STANDARD_OUTPUT:
        sys.stdout.write(content)
        return 0
    path = Path(options.out)
    _refuse_foreign(path)
    write_text(path, content)
    say(
        f"Wrote {path} for {settings.num_clients} client{'s'[: settings.num_clients != 1]}. Next: docker-compose up "
        "--build"
    )
    return 0


def compose_file(clients: int, keys: bool = False, originals: tuple[int, ...] = ()) -> str:
    """The content of `docker-compose.yml`. With `keys` everybody signs, and a container sees no private key but its
    own.

    `originals` are clients that are programs of somebody else, so no service here.
    """
    key_files, ours = KeyPaths(Path("keys")), [number for number in range(clients) if number not in originals]
    return FILE.substitute(
        MEMORY,
        pids_limit=PIDS_LIMIT,
        mark=MARK,
        options=f" --original-clients {_listed(originals)}" * bool(originals) + " --keys" * keys,
        clients=clients,
        settings="\n".join(_settings(clients, keys, originals)),
        prepare_volumes=_volumes("data", "logs", "exchange", "models", *["keys"] * keys),
        server_volumes=_volumes(
            "data:ro", "logs", "exchange", "models", *_read_only(key_files.server, key_files.public) * keys
        ),
        dashboard_volumes=_volumes("logs:ro", "exchange:ro"),
        client_names="\n".join(f"      client_{number}: {{condition: service_started}}" for number in ours),
        state_volumes="\n".join(f"  state_{number}:" for number in ours),
        client_services="\n\n".join(_client(number, keys) for number in ours),
    )


def _settings(clients: int, keys: bool, originals: tuple[int, ...]) -> Iterator[str]:
    yield f"  NUM_CLIENTS: {clients} # so many clients are in this file; `prepare` refuses another number"
    if originals:
        yield f'  ORIGINAL_CLIENTS: "{_listed(originals)}" # no services here: peers that know only the original files'
    if keys:
        yield "  KEYS_DIR: keys"
    for group in GROUPS:
        names = [
            name for name, field in Settings.model_fields.items() if group_of(field) == group and name not in FIXED
        ]
        if names:
            yield f"  # {group}"
            yield from (f"  {name.upper()}:" for name in names)


def _listed(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers))


def _client(number: int, keys: bool) -> str:
    shard = _read_only(*(DataPaths(Path("data")).shard(number, phase) for phase in PHASES))
    key = _read_only(KeyPaths(Path("keys")).client(number), KeyPaths(Path("keys")).public)
    state = f"      - state_{number}:{INSIDE}/{Settings.model_fields['state_dir'].default}"
    return CLIENT.substitute(
        number=number, volumes="\n".join([_volumes(*shard, *key * keys, "exchange", "models:ro"), state])
    )


def _read_only(*paths: Path) -> tuple[str, ...]:
    return tuple(f"{path.as_posix()}:ro" for path in paths)


def _volumes(*mounts: str) -> str:
    return "\n".join(
        f"      - {MOUNTS[folder]}{rest}:{INSIDE}/{folder}{rest}{mode}" for folder, rest, mode in map(_parts, mounts)
    )


def _parts(mount: str) -> tuple[str, str, str]:
    """`data/clients/x:ro` as the folder, the path below it, and the mode."""
    path, colon, mode = mount.partition(":")
    folder, slash, rest = path.partition("/")
    return folder, slash + rest, colon + mode


def _refuse_foreign(path: Path) -> None:
    """What somebody else has written is not replaced. Raises `SettingsError`."""
    if not path.exists():
        return
    with storage_errors(path, "read"):
        if path.read_text(encoding="utf-8", errors="replace").startswith(MARK):
            return
    raise SettingsError(
        f"{path} is not a file that this command has written", hint="name another with --out; --out - prints it"
    )
