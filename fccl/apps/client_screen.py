"""The screen of one client: a line for everything that happens, and on a terminal what it is doing now."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.text import Text

from fccl.display.plain_text import MAX_LINE, printable
from fccl.records.run import ClientStatus


class ClientScreen:
    """Lines above, on a terminal a spinner with step, loss and speed below."""

    def __init__(self, console: Console, client_id: int) -> None:
        self._console, self._name = console, f"client {client_id}"
        self._now = console.status(f"{self._name}: waiting") if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._now is not None:
            self._now.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._now is not None:
            self._now.stop()

    def tell(self, line: str) -> None:
        """Something happened."""
        self._console.print(Text(printable(f"{self._name}: {line}", MAX_LINE)), soft_wrap=True)
        if self._now is not None:
            self._now.update(f"{self._name}: waiting")

    def status(self, status: ClientStatus) -> None:
        """A heartbeat."""
        if self._now is not None and status.state == "training":
            loss = "" if status.loss is None else f", loss {status.loss:.3f}, {status.tokens_per_second:,.0f} tokens/s"
            self._now.update(
                f"{self._name}: round {status.round + 1} ({status.phase}), step {status.step} of {status.steps}{loss}"
            )
