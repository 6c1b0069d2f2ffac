"""`SuperLink`: the one that a command speaks to. It is waited for, and called through Flower's own command line."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fccl.display.words import plural
from fccl.errors import FederationError, SettingsError
from fccl.storage.files import write_text

_CONNECTION = "fccl"  # the name of our SuperLink in the configuration that we write for Flower
_CALL = "import sys; from flwr.cli.app import app; sys.argv[0] = 'flwr'; app()"
_LOOK_S = 0.5  # between two looks whether it answers
_ANSWER_S = 5.0  # so long may one answer take
_SOON_DAYS = 30  # so long before a certificate expires it is said


@dataclass(frozen=True)
class SuperLink:
    """Its address, and the certificate of the authority that issued its own; without one it must be on this host."""

    address: str
    certificate: str = ""

    def __post_init__(self) -> None:
        if self.certificate and not Path(self.certificate).is_file():
            raise SettingsError(f"{self.certificate} is not there", hint="it is to be the certificate of the CA")
        if not self.certificate and not _is_loopback(_host(self.address)):
            raise SettingsError(
                f"the SuperLink at {self.address} is on another host, and nothing would be encrypted",
                hint="name the CA's certificate with --root-certificates, or call this on the SuperLink's own host",
            )
        require_address(self.address)

    def wait(self, seconds: float, tell: Callable[[str], None]) -> None:
        """Wait until it answers; the first time that it does not, a line is told.

        Raises `FederationError` when it does not in time, or when what answers is no SuperLink of this authority.
        """
        end, told = time.monotonic() + seconds, False
        while reason := self._silence():
            if time.monotonic() > end:
                raise FederationError(
                    f"the SuperLink at {self.address} has not answered for {seconds:g} s: {reason}",
                    hint="`flower-superlink` starts one; --wait says how long it is waited for",
                )
            if not told:
                tell(f"Waiting for the SuperLink at {self.address}, at most {seconds:g} s ...")
                told = True
            time.sleep(_LOOK_S)
        if self.certificate and (left := self._days_left()) < _SOON_DAYS:
            days = plural(left, "day")
            tell(f"The SuperLink's certificate expires in {days}. `fccl flower init --renew` makes another.")

    def call(self, folder: Path, arguments: Sequence[str], quiet: bool = False) -> subprocess.CompletedProcess[str]:
        """Call `flwr` with these arguments and the name of this SuperLink, its configuration in `folder`.

        It prints for people, or with `quiet` into the result.
        """
        from fccl.transports.flower.quiet import QUIET

        home = folder / "home"
        home.mkdir(exist_ok=True)
        write_text(home / "config.toml", self._configuration())
        end = [_CONNECTION, "--format", "json"] if quiet else [_CONNECTION, "--stream"]
        command = [sys.executable, "-c", _CALL, *arguments, *end]
        environment = os.environ | QUIET | {"FLWR_HOME": str(home)}
        return subprocess.run(command, env=environment, check=False, text=True, capture_output=quiet)

    def _configuration(self) -> str:
        tls = {"root-certificates": str(Path(self.certificate).absolute())} if self.certificate else {"insecure": True}
        values = {"address": self.address, **tls}
        lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
        return f'[superlink]\ndefault = "{_CONNECTION}"\n\n[superlink.{_CONNECTION}]\n' + "\n".join(lines) + "\n"

    def _silence(self) -> str:
        """The reason why it does not answer; empty when it does."""
        connection = self._connection()
        try:
            connection.request("GET", "/health")
            status = connection.getresponse().status
        except ssl.SSLCertVerificationError as error:
            raise FederationError(
                f"what answers at {self.address} cannot show a certificate of {self.certificate}: "
                f"{error.verify_message}",
                hint="--root-certificates is to be the CA of that SuperLink; `fccl flower init --renew` renews its own",
            ) from error
        except (OSError, http.client.HTTPException) as error:
            return str(error) or type(error).__name__
        finally:
            connection.close()
        if status != http.HTTPStatus.OK:
            raise FederationError(
                f"what answers at {self.address} is no SuperLink that takes runs (status {status})",
                hint="a proxy lets only SuperNodes through: call this on the SuperLink's own host",
            )
        return ""

    def _days_left(self) -> int:
        """Whole days until its certificate expires."""
        host, port = _host(self.address), _port(self.address)
        with (
            socket.create_connection((host, port), _ANSWER_S) as plain,
            self._context().wrap_socket(plain, server_hostname=host) as secure,
        ):
            said = secure.getpeercert() or {}
        return int((ssl.cert_time_to_seconds(str(said["notAfter"])) - time.time()) // 86_400)

    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.certificate)

    def _connection(self) -> http.client.HTTPConnection:
        host, port = _host(self.address), _port(self.address)
        if not self.certificate:
            return http.client.HTTPConnection(host, port, timeout=_ANSWER_S)
        return http.client.HTTPSConnection(host, port, timeout=_ANSWER_S, context=self._context())


def require_address(text: str) -> None:
    """Raises `SettingsError` for what is no HOST:PORT; an IPv6 address stands in brackets."""
    host, _, port = text.rpartition(":")
    is_port = port.isascii() and port.isdecimal() and 1 <= int(port) <= 65535
    if not host or not is_port or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        raise SettingsError(f"{text!r} is no HOST:PORT", hint="as in --superlink 127.0.0.1:8000 or [::1]:8000")


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _is_loopback(host: str) -> bool:
    """Whether a host is this host's own loopback."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
