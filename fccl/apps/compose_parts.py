"""Parts of compose files: the settings that reach the containers, and what is mounted where."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fccl.config import GROUPS, Settings, group_of

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
    "flower": "${FLOWER_DIR:-./flower}",
    **{volume: volume for volume in ("superlink", "requests")},
}
# Measured for GPT-2 124M with the preset's batches; docs/docker.md has the table.
MEMORY = {"client_memory": "12g", "server_memory": "12g"}
PIDS_LIMIT = 1024  # for 64 cores and more: each of the libraries has a pool of its own


def passed_settings(fixed: frozenset[str] = FIXED) -> Iterator[str]:
    """Lines that pass every setting on but those that the file says itself."""
    for group in GROUPS:
        names = [
            name for name, field in Settings.model_fields.items() if group_of(field) == group and name not in fixed
        ]
        if names:
            yield f"  # {group}"
            yield from (f"  {name.upper()}:" for name in names)


def volumes(*mounts: str) -> str:
    """Lines that mount what is named, as `data/clients/x:ro`."""
    return "\n".join(
        f"      - {MOUNTS[folder]}{rest}:{INSIDE}/{folder}{rest}{mode}" for folder, rest, mode in map(_parts, mounts)
    )


def read_only(*paths: Path) -> tuple[str, ...]:
    """Mounts of files that are not to be changed."""
    return tuple(f"{path.as_posix()}:ro" for path in paths)


def _parts(mount: str) -> tuple[str, str, str]:
    """`data/clients/x:ro` as the folder, the path below it, and the mode."""
    path, colon, mode = mount.partition(":")
    folder, slash, rest = path.partition("/")
    return folder, slash + rest, colon + mode
