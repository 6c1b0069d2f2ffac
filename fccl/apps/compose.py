"""`fccl compose`: writes `docker-compose.yml` for any number of clients, from the templates in `fccl/assets/`.

The committed file is what it writes for three, and so is `docker-compose.flower.yml`, with Flower between the parties.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from fccl.apps.compose_flower import flower_file
from fccl.apps.compose_parts import FIXED, INSIDE, MARK, MEMORY, PIDS_LIMIT, passed_settings, read_only, volumes
from fccl.apps.console import say
from fccl.apps.templates import filled
from fccl.config import Settings
from fccl.display.words import plural
from fccl.errors import SettingsError
from fccl.paths import DataPaths, KeyPaths
from fccl.specs import PHASES
from fccl.storage.files import storage_errors, write_text
from fccl.storage.temporary import sweep_for

STANDARD_OUTPUT = "-"
# A site's own folder, and what its client is told of it: names of files, or other arguments.
SITE = "${SITE_@:-./sites/client_@}"
SITE_ARGUMENTS = "${SITE_ARGUMENTS_@:---sft-data site/sft.jsonl --va-data site/va.jsonl}"


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Write the file, or print it. Returns the exit status."""
    content, clients = _content(settings, options), settings.num_clients
    if options.out == STANDARD_OUTPUT:
        sys.stdout.write(content)
        return 0
    path = Path(options.out or ("docker-compose.flower.yml" if options.flower else "docker-compose.yml"))
    _refuse_foreign(path)
    sweep_for(path)
    write_text(path, content)
    named = f" -f {path}" if options.flower else ""
    say(f"Wrote {path} for {plural(clients, 'client')}. Next: docker-compose{named} up --build")
    return 0


def _content(settings: Settings, options: argparse.Namespace) -> str:
    originals = settings.exchange_spec().originals
    if originals and options.keys:
        raise SettingsError(
            f"--keys does not go with ORIGINAL_CLIENTS={settings.original_clients}: they sign nothing",
            hint="leave one of the two out",
        )
    if not options.flower:
        return compose_file(settings.num_clients, options.keys, originals, options.own_files)
    given = {"--keys": options.keys, "--own-files": options.own_files, "--original-clients": originals}
    for flag in (flag for flag, value in given.items() if value):
        raise SettingsError(
            f"{flag} does not go with --flower",
            hint="everybody signs there, and sites elsewhere have files of their own: docs/flower.md",
        )
    return flower_file(settings.num_clients)


def compose_file(clients: int, keys: bool = False, originals: tuple[int, ...] = (), own_files: bool = False) -> str:
    """The content of `docker-compose.yml`. With `keys` everybody signs, and a container sees no private key but its
    own. With `own_files` every client has files of its own in a folder that no other container sees, and the server
    prepares no shard.

    `originals` are clients that are programs of somebody else, so no service here.
    """
    key_files, ours = KeyPaths(Path("keys")), [number for number in range(clients) if number not in originals]
    blanks = {
        **MEMORY,
        "pids_limit": PIDS_LIMIT,
        "mark": MARK,
        "options": f" --original-clients {_listed(originals)}" * bool(originals)
        + " --keys" * keys
        + " --own-files" * own_files,
        "clients": clients,
        "settings": "\n".join(_settings(clients, keys, originals, own_files)),
        "prepare_volumes": volumes("data", "logs", "exchange", "models", *["keys"] * keys),
        "server_volumes": volumes(
            "data:ro", "logs", "exchange", "models", *read_only(key_files.server, key_files.public) * keys
        ),
        "dashboard_volumes": volumes("logs:ro", "exchange:ro"),
        "client_names": "\n".join(f"      client_{number}: {{condition: service_started}}" for number in ours),
        "state_volumes": "\n".join(f"  state_{number}:" for number in ours),
        "client_services": "\n\n".join(_client(number, keys, own_files) for number in ours),
    }
    return filled("compose.yml", blanks)


def _settings(clients: int, keys: bool, originals: tuple[int, ...], own_files: bool) -> Iterator[str]:
    yield f"  NUM_CLIENTS: {clients} # so many clients are in this file; `prepare` refuses another number"
    if originals:
        yield f'  ORIGINAL_CLIENTS: "{_listed(originals)}" # no services here: peers that know only the original files'
    if keys:
        yield "  KEYS_DIR: keys"
    if own_files:
        yield '  SERVER_ONLY: "true" # each client has its own files'
    yield from passed_settings(FIXED | {"server_only"} if own_files else FIXED)


def _listed(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers))


def _client(number: int, keys: bool, own_files: bool) -> str:
    shard = () if own_files else read_only(*(DataPaths(Path("data")).shard(number, phase) for phase in PHASES))
    key = read_only(KeyPaths(Path("keys")).client(number), KeyPaths(Path("keys")).public)
    mounted = [volumes(*shard, *key * keys, "exchange", "models:ro")]
    mounted.append(f"      - state_{number}:{INSIDE}/{Settings.model_fields['state_dir'].default}")
    command = ""
    if own_files:
        mounted.insert(0, f"      - {SITE.replace('@', str(number))}:{INSIDE}/site:ro")
        command = f"\n    command: client {SITE_ARGUMENTS.replace('@', str(number))}"
    blanks = {"number": number, "command": command, "volumes": "\n".join(mounted)}
    return filled("compose_client.yml", blanks).rstrip("\n")


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
