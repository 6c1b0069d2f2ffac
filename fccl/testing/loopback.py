"""Flower on this host for tests and benchmarks: a SuperLink and SuperNodes as processes, on ports that are free."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from fccl.storage.files import write_text
from fccl.transports.flower.bundle import write_bundle
from fccl.transports.flower.quiet import FAST, QUIET

_STARTS_S = 300.0  # a busy machine's
_SCRIPTS = Path(sys.executable).parent  # where Flower's commands are, which start each other by name


def free_port() -> int:
    """A port of this host that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(happened: Callable[[], object], what: str, seconds: float = _STARTS_S) -> None:
    """Wait for what other processes do. Raises `TimeoutError` where they do not."""
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} has not happened within {seconds:g} s")
        time.sleep(0.05)


@dataclass(frozen=True)
class Certificates:
    """PEM files: the authority's certificate, the SuperLink's, and its private key."""

    ca: Path
    certificate: Path
    key: Path


@dataclass
class Loopback:
    """The processes of one deployment, each with its log in `folder`; `environment` is theirs beside Flower's own.

    `isolation` is the SuperLink's: with `process` the ServerApp is started by a SuperExec beside it, and outlives it.
    """

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    isolation: str = "subprocess"
    tls: Certificates | None = None  # none: nothing is encrypted
    port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Of the SuperLink."""
        return f"127.0.0.1:{self.port}"

    @property
    def variables(self) -> dict[str, str]:
        """The environment of every process here."""
        path = f"{_SCRIPTS}{os.pathsep}{os.environ.get('PATH', '')}"
        home = {"FLWR_HOME": str(self.folder / "flwr"), "PATH": path}
        return {**os.environ, **QUIET, **FAST, **self.environment, **home}

    def start(self, name: str, command: Sequence[str], **variables: str) -> subprocess.Popen[bytes]:
        """A process by name, in a group of its own, its output in `<name>.log`."""
        with open(self.folder / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env=self.variables | variables,
                cwd=self.folder,
                start_new_session=True,
            )
        self.processes[name] = process
        return process

    def super_link(self) -> None:
        """Start it, or start it again with the database of the one before; wait until it answers."""
        database = ["--database", str(self.folder / "superlink.db")]
        where = ["--host", "127.0.0.1", "--port", str(self.port), "--isolation", self.isolation]
        self.start("superlink", [str(_SCRIPTS / "flower-superlink"), *self._server_tls, *where, *database])
        until(self._answers, "the SuperLink's start")

    def super_exec(self) -> None:
        """Start what starts ServerApps; with isolation `process` only."""
        command = [str(_SCRIPTS / "flower-superexec"), *self._client_tls, "--runtime-api-address", self.address]
        self.start("superexec", command)

    def super_node(self, client_id: int, site: Path, address: str = "", prefix: Sequence[str] = ()) -> None:
        """Start a site's SuperNode, or another one in its place.

        `address` is the SuperLink's as the site reaches it; `prefix` begins the command, for a network of its own.
        """
        config = f'client-id={client_id} exchange-dir="{site}"'
        where = ["--superlink", address or self.address, "--port", str(free_port()), "--node-config", config]
        command = [*prefix, str(_SCRIPTS / "flower-supernode"), *self._client_tls, *where]
        self.start(f"supernode_{client_id}", command)

    def submit(self, request: Path, server: str) -> None:
        """Give the SuperLink an app: the bridge at the sites, and the ServerApp of a module, which reads `request`."""
        place = request.with_suffix(".app")
        write_bundle(place / "app", request, server)
        self.call(place / "app", place / "home")

    def call(self, app: Path, home: Path) -> None:
        """Give the SuperLink the app in a folder. `home` is made for Flower's own files."""
        home.mkdir()
        tls = "insecure = true" if self.tls is None else f"root-certificates = {json.dumps(str(self.tls.ca))}"
        said = f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "{self.address}"\n{tls}\n'
        write_text(home / "config.toml", said)
        command = [str(_SCRIPTS / "flwr"), "run", str(app), "here"]
        subprocess.run(
            command, env=self.variables | {"FLWR_HOME": str(home)}, check=True, capture_output=True, timeout=_STARTS_S
        )

    def end(self) -> None:
        """Kill all."""
        for name in list(self.processes):
            self.kill(name)

    def kill(self, name: str) -> None:
        """Kill a process and all that it has started."""
        process = self.processes.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()

    @property
    def _server_tls(self) -> list[str]:
        if self.tls is None:
            return ["--insecure"]
        own = ["--ssl-certfile", str(self.tls.certificate), "--ssl-keyfile", str(self.tls.key)]
        return [*own, "--ssl-ca-certfile", str(self.tls.ca)]

    @property
    def _client_tls(self) -> list[str]:
        return ["--insecure"] if self.tls is None else ["--root-certificates", str(self.tls.ca)]

    def _answers(self) -> bool:
        if self.processes["superlink"].poll() is not None:
            raise RuntimeError(f"the SuperLink has ended: {self.folder / 'superlink.log'} says why")
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False


@contextmanager
def loopback(
    folder: Path,
    sites: Mapping[int, Path],
    isolation: str = "subprocess",
    tls: Certificates | None = None,
    **environment: str,
) -> Iterator[Loopback]:
    """A SuperLink and a SuperNode for each site; all is killed at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    deployment = Loopback(folder, environment, isolation, tls)
    try:
        deployment.super_link()
        if isolation == "process":
            deployment.super_exec()
        for client_id, site in sites.items():
            deployment.super_node(client_id, site)
        yield deployment
    finally:
        deployment.end()
