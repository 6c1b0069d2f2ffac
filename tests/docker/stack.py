"""A compose stack of its own for a test: own project name, own folder on the host, own port, gone afterwards whatever
happens.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fccl.apps.compose import compose_file
from fccl.config import Settings
from fccl.paths import DataPaths, ExchangePaths, LogPaths
from fccl.storage.files import sha256_of

ROOT = Path(__file__).resolve().parent.parent.parent
IMAGE = "fccl"
SMALL = {"MAX_SFT_EXAMPLES": "300", "MAX_VA_EXAMPLES": "150", "FED_ROUNDS": "2", "EVALUATE": "false", "THREADS": "1"}
PATIENT = {"CLIENT_TIMEOUT_S": "600", "HEARTBEAT_STALE_S": "300"}  # nobody is given up on a busy machine
COMPOSES = [("docker-compose",), ("docker", "compose")]


def run(*command: str, check: bool = True, timeout: float = 240, **options: Any) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        command,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **options},
        text=True,
        check=False,
        timeout=timeout,
    )
    assert not check or result.returncode == 0, f"{' '.join(command)}:\n{result.stdout}"
    return result


def is_here(compose: tuple[str, ...]) -> bool:
    """Whether this compose command is installed."""
    return (
        shutil.which(compose[0]) is not None
        and not subprocess.run([*compose, "version"], capture_output=True, check=False).returncode
    )


def torch_index() -> dict[str, str]:
    """PyTorch's own where it is reached; else whatever pip is set up to use."""
    try:
        socket.create_connection(("download.pytorch.org", 443), timeout=5).close()
    except OSError:
        return {"TORCH_INDEX": ""}
    return {}


def clean_environment(**settings: str) -> dict[str, str]:
    """This process's environment without any setting of FCCL, and with these."""
    return {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields} | settings


def until(happened: Callable[[], Any], what: str, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"{what} did not happen within {seconds:g} s"
        time.sleep(0.02)


def stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    """When each file and folder was written last (nanoseconds), and whose it is."""
    return {path: (path.stat().st_mtime_ns, path.stat().st_uid) for path in [folder, *folder.rglob("*")]}


def in_process(folder: Path, **settings: str) -> str:
    """SHA-256 of the final adapter of `fccl run` with these settings."""
    folder.mkdir(exist_ok=True)
    run(
        sys.executable,
        "-m",
        "fccl",
        "run",
        cwd=folder,
        env=clean_environment(**{**SMALL, **settings, "PYTHONPATH": str(ROOT)}),
    )
    return sha256_of(LogPaths(folder / "logs").global_final)


@dataclass(frozen=True)
class Stack:
    """A compose file for some clients in a folder on the host, where `data` and `logs` are."""

    folder: Path
    compose: tuple[str, ...]
    settings: dict[str, str] = field(default_factory=dict)
    file: str = "docker-compose.yml"

    @property
    def project(self) -> str:
        """Another run of the tests at the same time has another."""
        return f"{self.folder.parent.name}-{self.folder.name}"

    @property
    def data(self) -> DataPaths:
        return DataPaths(self.folder / "data")

    @property
    def logs(self) -> LogPaths:
        return LogPaths(self.folder / "logs")

    @property
    def exchange(self) -> ExchangePaths:
        """With EXCHANGE_DIR=./exchange; else it is a volume that the host does not see."""
        return ExchangePaths(self.folder / "exchange")

    def __call__(
        self, *arguments: str, check: bool = True, stderr: int = subprocess.STDOUT, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of compose. Returns its exit status and what it printed."""
        environment = clean_environment(**{**self.settings, **settings})
        return run(
            *self.compose,
            *("-p", self.project, "-f", self.file),
            *arguments,
            check=check,
            timeout=600,
            stderr=stderr,
            cwd=self.folder,
            env=environment,
        )

    def inside(self, service: str, script: str) -> str:
        """What a shell prints in a fresh container of a service."""
        return self(
            "run", "--rm", "--no-deps", "-T", "--entrypoint", "sh", service, "-c", script, stderr=subprocess.DEVNULL
        ).stdout

    def container(self, service: str) -> dict[str, Any]:
        """`docker inspect` of a service's container."""
        names = self("ps", "-q", "-a", service).stdout.split()
        return json.loads(run("docker", "inspect", names[-1]).stdout)[0]

    def kill(self, service: str) -> None:
        """SIGKILL to everything in a service's container but its init, which then ends as the rest has ended."""
        run("docker", "exec", self.container(service)["Id"], "sh", "-c", "kill -9 -1")

    def ended(self, *services: str) -> bool:
        """Whether these services' containers are done for good."""
        return all(self.container(service)["State"]["Status"] == "exited" for service in services)


@contextmanager
def stack(
    folder: Path, compose: tuple[str, ...], clients: int = 3, keys: bool = False, **settings: str
) -> Iterator[Stack]:
    """Write the compose file; afterwards remove containers, networks and volumes.

    On an error, print what the containers said.
    """
    (folder / "docker-compose.yml").write_text(compose_file(clients, keys))
    made = Stack(folder, compose, {**SMALL, **PATIENT, "DASHBOARD_PORT": free_port(), **settings})
    with gone_afterwards(made):
        yield made


def free_port() -> str:
    """A port of this host that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@contextmanager
def gone_afterwards(made: Stack) -> Iterator[None]:
    """Remove a stack's containers, networks and volumes after the block."""
    try:
        yield
    except BaseException:
        print(made("logs", "--no-color", check=False).stdout)
        raise
    finally:
        made("down", "--volumes", "--remove-orphans", "--timeout", "5", check=False)


def left_over(project: str) -> str:
    """Containers, volumes and networks of a project that are still there."""
    label = f"label=com.docker.compose.project={project}"
    kinds = (("ps", "-a"), ("volume", "ls"), ("network", "ls"))
    return "".join(run("docker", *kind, "-q", "--filter", label).stdout for kind in kinds)
