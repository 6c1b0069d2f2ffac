"""A deployment as `fccl flower init` lays it out, started by the commands of its README files, on loopback."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fccl.paths import FlowerPaths
from fccl.paths.flower import README
from fccl.testing.loopback import Loopback, free_port, until

ROOT = Path(__file__).resolve().parent.parent.parent


def blocks(path: Path) -> list[str]:
    """The commands of a README: its indented paragraphs, in order."""
    found = re.findall(r"(?:^    .*\n)+", path.read_text(), re.MULTILINE)
    return [re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in found]


class Bundles(Loopback):
    """Its SuperLink is called directly, for the proxy is another test's: the sites' README names its port."""

    @property
    def variables(self) -> dict[str, str]:
        """As every process here has them, and `fccl` among the commands."""
        found = super().variables
        return found | {"PATH": f"{self.folder / 'bin'}{os.pathsep}{found['PATH']}"}

    @property
    def paths(self) -> FlowerPaths:
        return FlowerPaths(self.folder / "flower")

    def command(self, name: str, block: str, folder: Path, **variables: str) -> None:
        """Start a block of a README in its folder, in a shell."""
        self.start(name, ["sh", "-c", f"cd '{folder}'\n{block}"], **variables)

    def server(self) -> None:
        """The SuperLink and the SuperExec of the server's README."""
        link, execute, _, register, _ = blocks(self.paths.server.root / README)
        self.command("superlink", link, self.folder)
        self.command("superexec", execute, self.folder)
        self.command("register", register, self.folder)
        until(lambda: self.processes["register"].poll() is not None, "the sites' registration", 300)
        assert self.processes.pop("register").returncode == 0, (self.folder / "register.log").read_text()

    def site(self, client_id: int, **changes: str) -> None:
        """The SuperNode of a site's README, with changes: a text in the place of another."""
        _, node, _ = blocks(self.paths.site(client_id).root / README)
        name = changes.pop("name", f"supernode_{client_id}")
        node = re.sub(r"--port \d+", f"--port {free_port()}", node)  # another test may be at work on this host
        for old, new in changes.items():
            assert old in node, old
            node = node.replace(old, new)
        self.command(name, node, self.paths.site(client_id).root)


@contextmanager
def bundles(folder: Path, **environment: str) -> Iterator[Bundles]:
    """The folder, with `fccl` as a command of its own; everything that was started is killed at the end."""
    folder.mkdir(parents=True)
    shims = folder / "bin"
    shims.mkdir()
    (shims / "fccl").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fccl "$@"\n')
    (shims / "fccl").chmod(0o755)
    deployment = Bundles(folder, environment, "process")
    try:
        yield deployment
    finally:
        for name in list(deployment.processes):
            deployment.kill(name)
        for number in left(folder):
            with suppress(ProcessLookupError):
                os.kill(number, 9)


def left(folder: Path) -> Iterator[int]:
    """Processes that Flower has detached from those that were started here; they look for their parents, but not all
    of them always."""
    mine = f"FLWR_HOME={folder / 'flwr'}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mine in path.read_bytes().split(b"\0") and int(path.parent.name) != os.getpid():
                yield int(path.parent.name)
