"""Bad networks between a SuperLink and its sites, made by the tests themselves.

Each site has a network namespace of its own and one link, of a limited rate. At the server's end of it a small proxy
carries its connections on: late, and with resets.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import pytest

RATE = "4mbit"
DELAY_S = 0.08  # each way
RESET_EVERY = 50  # pieces: connections are kept, so one in a hundred connections would be none
_AT_ONCE = "32kbit"  # that `tc tbf` lets through at full speed
_PIECE = 65_536  # bytes
_AT_ONCE_CLOSED = struct.pack("ii", 1, 0)  # SO_LINGER: the other side sees a reset, not an end


@dataclass(frozen=True)
class Wire:
    """The link of one site: `host` is its server's end, an address in the test's own network."""

    namespace: str
    interface: str
    host: str
    site: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """The beginning of a command that is to run at the site."""
        return ("nsenter", f"--net=/run/netns/{self.namespace}")

    def cut(self) -> None:
        """Take the site's end down."""
        _ip("-n", self.namespace, "link", "set", "eth0", "down")

    def mend(self) -> None:
        """Take it up again."""
        _ip("-n", self.namespace, "link", "set", "eth0", "up")


@contextmanager
def wires(count: int) -> Iterator[list[Wire]]:
    """A link for each of so many sites. Skips the test where this machine lets nobody make one."""
    own = os.getpid()
    made = [
        Wire(f"fccl{own}s{number}", f"fccl{own % 100_000}n{number}", f"{net}.1", f"{net}.2")
        for number in range(count)
        for net in (f"10.{200 + own % 50}.{number}",)
    ]
    with ExitStack() as held:
        for wire in made:
            held.callback(_remove, wire)
            try:
                _make(wire)
            except (OSError, subprocess.CalledProcessError) as error:
                said = getattr(error, "stderr", "") or str(error)
                pytest.skip(f"no network namespace can be made here (root, iproute2): {said.strip()}")
        yield made


class Proxy:
    """Listens on a host and carries every connection to a port of this machine, each piece `DELAY_S` late.

    The connection of every `RESET_EVERY`th piece is reset in the place of carrying it. `resets` counts them.
    """

    def __init__(self, host: str, to: int) -> None:
        self._to, self._pieces, self.resets = to, 0, 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        made = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._carry, host, 0), self._loop)
        self.port: int = made.result(30).sockets[0].getsockname()[1]

    def close(self) -> None:
        """Break every connection."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    async def _end(self) -> None:
        others = [each for each in asyncio.all_tasks() if each is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _carry(self, inside: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.CancelledError):
            outside, on = await asyncio.open_connection("127.0.0.1", self._to)
            try:
                await asyncio.gather(self._pieces_of(inside, on), self._pieces_of(outside, back))
            except ConnectionError:
                _reset(on)
                _reset(back)
            finally:
                on.close()
                back.close()

    async def _pieces_of(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while piece := await source.read(_PIECE):
            self._pieces += 1
            await asyncio.sleep(DELAY_S)
            if self._pieces % RESET_EVERY == 0:
                self.resets += 1
                raise ConnectionResetError
            target.write(piece)
            await target.drain()
        target.close()


@contextmanager
def proxied(wire: Wire, to: int) -> Iterator[Proxy]:
    """The proxy at the server's end of a site's link."""
    proxy = Proxy(wire.host, to)
    try:
        yield proxy
    finally:
        proxy.close()


def _make(wire: Wire) -> None:
    _ip("netns", "add", wire.namespace)
    _ip("link", "add", wire.interface, "type", "veth", "peer", "name", "eth0", "netns", wire.namespace)
    _ip("addr", "add", f"{wire.host}/24", "dev", wire.interface)
    _ip("-n", wire.namespace, "addr", "add", f"{wire.site}/24", "dev", "eth0")
    for at, interface in ((("-n", wire.namespace), "lo"), (("-n", wire.namespace), "eth0"), ((), wire.interface)):
        _ip(*at, "link", "set", interface, "up")
    limits = ("root", "tbf", "rate", RATE, "burst", _AT_ONCE, "latency", "400ms")
    _run("tc", "qdisc", "add", "dev", wire.interface, *limits)
    _run("tc", "-n", wire.namespace, "qdisc", "add", "dev", "eth0", *limits)


def _remove(wire: Wire) -> None:
    for command in (("link", "del", wire.interface), ("netns", "del", wire.namespace)):
        with suppress(OSError, subprocess.CalledProcessError):  # whatever was made of it
            _ip(*command)


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


def _reset(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE_CLOSED)
    writer.transport.abort()
