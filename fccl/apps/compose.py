"""`fccl compose`: writes `docker-compose.yml` for any number of clients, from the templates in `fccl/assets/`.

The committed file is what it writes for three.
"""

from __future__ import annotations

import argparse
import string
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from fccl.apps.console import say
from fccl.config import GROUPS, Settings, group_of
from fccl.errors import SettingsError
from fccl.paths import DataPaths, KeyPaths
from fccl.specs import PHASES
from fccl.storage.files import storage_errors, write_text
from fccl.storage.temporary import sweep_for

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
# A site's own folder, and what its client is told of it: names of files, or other arguments.
SITE = "${SITE_@:-./sites/client_@}"
SITE_ARGUMENTS = "${SITE_ARGUMENTS_@:---sft-data site/sft.jsonl --va-data site/va.jsonl}"
PIDS_LIMIT = 1024  # for 64 cores and more: each of the libraries has a pool of its own


class _Template(string.Template):
    """Blanks begin with @: Compose has the dollar sign for itself."""

    delimiter = "@"


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Write the file, or print it. Returns the exit status."""
    originals = settings.exchange_spec().originals
    if originals and options.keys:
        raise SettingsError(
            f"--keys does not go with ORIGINAL_CLIENTS={settings.original_clients}: they sign nothing",
            hint="leave one of the two out",
        )
    content = compose_file(settings.num_clients, options.keys, originals, options.own_files)
    if options.out == STANDARD_OUTPUT:
        sys.stdout.write(content)
        return 0
    path = Path(options.out)
    _refuse_foreign(path)
    sweep_for(path)
    write_text(path, content)
    say(
        f"Wrote {path} for {settings.num_clients} client{'s'[: settings.num_clients != 1]}. Next: docker-compose up "
        "--build"
    )
    return 0


def compose_file(clients: int, keys: bool = False, originals: tuple[int, ...] = (), own_files: bool = False) -> str:
    """The content of `docker-compose.yml`. With `keys` everybody signs, and a container sees no private key but its
    own. With `own_files` every client has files of its own in a folder that no other container sees, and the server
    prepares no shard.

    `originals` are clients that are programs of somebody else, so no service here.
    """
    key_files, ours = KeyPaths(Path("keys")), [number for number in range(clients) if number not in originals]
    return _template("compose.yml").substitute(
        MEMORY,
        pids_limit=PIDS_LIMIT,
        mark=MARK,
        options=f" --original-clients {_listed(originals)}" * bool(originals)
        + " --keys" * keys
        + " --own-files" * own_files,
        clients=clients,
        settings="\n".join(_settings(clients, keys, originals, own_files)),
        prepare_volumes=_volumes("data", "logs", "exchange", "models", *["keys"] * keys),
        server_volumes=_volumes(
            "data:ro", "logs", "exchange", "models", *_read_only(key_files.server, key_files.public) * keys
        ),
        dashboard_volumes=_volumes("logs:ro", "exchange:ro"),
        client_names="\n".join(f"      client_{number}: {{condition: service_started}}" for number in ours),
        state_volumes="\n".join(f"  state_{number}:" for number in ours),
        client_services="\n\n".join(_client(number, keys, own_files) for number in ours),
    )


def _settings(clients: int, keys: bool, originals: tuple[int, ...], own_files: bool) -> Iterator[str]:
    yield f"  NUM_CLIENTS: {clients} # so many clients are in this file; `prepare` refuses another number"
    if originals:
        yield f'  ORIGINAL_CLIENTS: "{_listed(originals)}" # no services here: peers that know only the original files'
    if keys:
        yield "  KEYS_DIR: keys"
    if own_files:
        yield '  SERVER_ONLY: "true" # each client has its own files'
    fixed = FIXED | {"server_only"} if own_files else FIXED
    for group in GROUPS:
        names = [
            name for name, field in Settings.model_fields.items() if group_of(field) == group and name not in fixed
        ]
        if names:
            yield f"  # {group}"
            yield from (f"  {name.upper()}:" for name in names)


def _listed(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers))


def _client(number: int, keys: bool, own_files: bool) -> str:
    shard = () if own_files else _read_only(*(DataPaths(Path("data")).shard(number, phase) for phase in PHASES))
    key = _read_only(KeyPaths(Path("keys")).client(number), KeyPaths(Path("keys")).public)
    volumes = [_volumes(*shard, *key * keys, "exchange", "models:ro")]
    volumes.append(f"      - state_{number}:{INSIDE}/{Settings.model_fields['state_dir'].default}")
    command = ""
    if own_files:
        volumes.insert(0, f"      - {SITE.replace('@', str(number))}:{INSIDE}/site:ro")
        command = f"\n    command: client {SITE_ARGUMENTS.replace('@', str(number))}"
    blanks = {"number": number, "command": command, "volumes": "\n".join(volumes)}
    return _template("compose_client.yml").substitute(blanks).rstrip("\n")


def _template(name: str) -> _Template:
    return _Template(files("fccl").joinpath("assets", name).read_text(encoding="utf-8"))


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
    """Refuse to replace a file that somebody else has written. Raises `SettingsError`."""
    if not path.exists():
        return
    with storage_errors(path, "read"):
        if path.read_text(encoding="utf-8", errors="replace").startswith(MARK):
            return
    raise SettingsError(
        f"{path} is not a file that this command has written", hint="name another with --out; --out - prints it"
    )
