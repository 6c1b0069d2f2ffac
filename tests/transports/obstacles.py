"""Things that are put where the exchange directory's files and folders belong."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from pathlib import Path

import pytest

from fccl.paths import ExchangePaths
from fccl.storage.reading import is_own_folder


def _full_folder(path: Path) -> None:
    (path / "deep").mkdir(parents=True)
    (path / "deep" / "file").write_text("x")


def _socket(path: Path) -> None:
    """Bound by its name in its folder, since the whole path may be too long for a socket's address."""
    here = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"/proc/self/fd/{here}/{path.name}")
    finally:
        os.close(here)


def _device(path: Path) -> None:
    try:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("this user may not make devices")


def _link_to_a_file(path: Path) -> None:
    outside = path.parent / ".outside"
    outside.write_text("precious")
    path.symlink_to(outside)


def _link_to_a_folder(path: Path) -> None:
    outside = path.parent / ".outside_folder"
    outside.mkdir(exist_ok=True)
    path.symlink_to(outside)


OBSTACLES = {
    "an empty folder": lambda path: path.mkdir(),
    "a full folder": _full_folder,
    "a pipe": os.mkfifo,
    "a socket": _socket,
    "a device": _device,
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link with a name that is too long": lambda path: path.symlink_to("x" * 300),
    "a link to a file": _link_to_a_file,
    "a link to a folder": _link_to_a_folder,
}
# Where a folder belongs, these are in the way too.
INSTEAD_OF_A_FOLDER = OBSTACLES | {"a file": lambda path: path.write_text("x")}


def names(paths: ExchangePaths, clients: int, rounds: range) -> list[Path]:
    """Every name of the protocol that does not depend on a hash, and of the processes' locks but the server's."""
    of_rounds = [make(number) for number in rounds for make in (paths.global_adapter, paths.task, paths.phase)]
    of_answers = [path for number in rounds for client in range(clients) for path in paths.taken_away(client, number)]
    return [*of_rounds, *of_answers, *(paths.status(client) for client in range(clients)), paths.bell / "rung"]


def by_hash(paths: ExchangePaths) -> list[Path]:
    """The adapters that are there under the hash of their files."""
    return [path for path in paths.root.glob("*_*") if path.name.startswith(("reference_", "correction_"))]


def put(path: Path, kind: str) -> None:
    """Put an obstacle in the place of whatever is there."""
    away(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    (INSTEAD_OF_A_FOLDER if kind == "a file" else OBSTACLES)[kind](path)


def away(path: Path) -> None:
    if not is_own_folder(path):
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)
