"""`WrappedTransport`: a transport around another one, which a subclass changes in one place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fccl.adapters.adapter import Adapter
from fccl.messages import ClientFailure, ClientUpdate, FitTask, Given, Request, Statement
from fccl.transports.held import NothingHeld
from fccl.transports.protocol import SILENT, Listener, RunIdentity, Transport


@dataclass(frozen=True, eq=False)
class WrappedTransport(NothingHeld):
    """Passes everything on to `transport`. The caller enters that one; entering this one holds nothing.

    An example, a transport on which nobody hears of heartbeats:

        class Deaf(WrappedTransport):
            def begin(self, run, listen=SILENT):
                super().begin(run)
    """

    transport: Transport

    def begin(self, run: RunIdentity, listen: Listener = SILENT) -> None:
        """Passed on."""
        self.transport.begin(run, listen)

    def ask(self, request: Request[Given], client_ids: Sequence[int]) -> Iterator[Given | ClientFailure]:
        """Passed on, and the answers back."""
        return self.transport.ask(request, client_ids)

    def late(self, task: FitTask, client_ids: Sequence[int]) -> Iterator[ClientUpdate]:
        """Passed on, and the updates back."""
        return self.transport.late(task, client_ids)

    def news(self, known: Mapping[int, float]) -> Sequence[Statement]:
        """Passed on, and the statements back."""
        return self.transport.news(known)

    def finish(self, run_id: str, next_round: int, adapter: Adapter) -> None:
        """Passed on."""
        self.transport.finish(run_id, next_round, adapter)
