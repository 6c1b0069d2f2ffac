"""`FlowerTransport`: the exchange directory of a server whose sites are reached by Flower.

The directory is the server's own. What it holds is what travels: signed tasks and signed answers, to the byte. So
retries, refusals, checks and restarts are those of `docs/protocol.md`; a SuperLink is a way, not a party.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from flwr.serverapp import Grid

from fccl.adapters.adapter import Adapter
from fccl.keys import Keys
from fccl.messages import ClientFailure, ClientUpdate, FitTask, Given, Request, Statement
from fccl.paths import ExchangePaths
from fccl.specs import ExchangeSpec
from fccl.transports.exchange.server import ExchangeTransport
from fccl.transports.flower.courier import NODES_S, POLL_S, Courier
from fccl.transports.flower.errand import Errand
from fccl.transports.flower.lost import LOST_S
from fccl.transports.flower.node_keys import NodeKeys
from fccl.transports.flower.site_log import SiteLog
from fccl.transports.protocol import SILENT, Listener, RunIdentity


class FlowerTransport:
    """Holds the server's exchange directory and a thread that carries its files, from `__enter__` to `__exit__`.

    A site whose SuperNode is not online for `nodes_s` seconds, or whose messages fail three times in a request, has a
    failure in the place of its answer. `poll_s` is the time between two looks at the SuperLink. With `node_keys` a
    SuperNode speaks for the client whose node key it has, and for no other. A message that is `lost_s` without an
    answer is asked about, and sent again where it has not arrived. `sites` is the file for the state of the sites;
    without it none is written. `last_rounds` end their phases: a late answer to them counts nowhere, and a site that
    waited for one would not hear of what comes next.

        with FlowerTransport(grid, ExchangePaths("exchange"), spec, received) as transport:
            answers = list(transport.ask(task, [0, 1, 2]))
    """

    def __init__(
        self,
        grid: Grid,
        paths: ExchangePaths,
        spec: ExchangeSpec,
        received: Path,
        keys: Keys | None = None,
        poll_s: float = POLL_S,
        nodes_s: float = NODES_S,
        node_keys: NodeKeys | None = None,
        lost_s: float = LOST_S,
        sites: Path | None = None,
        last_rounds: Collection[int] = (),
    ) -> None:
        self._paths, self._spec, self._last_rounds = paths, spec, last_rounds
        log = None if sites is None else SiteLog(sites, spec.num_clients)
        self._courier = Courier(grid, paths, poll_s, nodes_s, node_keys, lost_s, log)
        self._exchange = ExchangeTransport(paths, spec, received, keys, self._courier.trouble)
        self._held = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as held:
            held.enter_context(self._exchange)
            held.enter_context(self._courier)
            self._held = held.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def require_here(self) -> None:
        """Raises `StorageError` when the server's directory is gone."""
        self._exchange.require_here()

    def begin(self, run: RunIdentity, listen: Listener = SILENT) -> None:
        """As the exchange directory's. The sites hear of a run by its first request."""
        self._exchange.begin(run, listen)
        self._courier.begin(run.run_id)

    def ask(self, request: Request[Given], client_ids: Sequence[int]) -> Iterator[Given | ClientFailure]:
        """As the exchange directory's; a site that is not reached is a failure with the reason. Raises
        `StorageError`."""
        late = False
        if isinstance(request, FitTask):
            self._exchange.open(request, client_ids)  # before it is carried: what an earlier process left is not
            late = self._spec.late == "next" and request.round not in self._last_rounds
        with self._courier.carrying(Errand.of(self._paths, self._spec, request, tuple(client_ids), late)):
            yield from self._exchange.ask(request, client_ids)

    def late(self, task: FitTask, client_ids: Sequence[int]) -> Iterator[ClientUpdate]:
        """As the exchange directory's: a reply to an earlier message is brought there whenever it comes."""
        return self._exchange.late(task, client_ids)

    def news(self, known: Mapping[int, float]) -> Sequence[Statement]:
        """Revoked keys alone: sites are known by their SuperNodes, and no statement of theirs travels."""
        return self._exchange.news(known)

    def finish(self, run_id: str, next_round: int, adapter: Adapter) -> None:
        """Leave the final adapter, and carry it to the sites that are online, or come back within half a minute."""
        self._exchange.finish(run_id, next_round, adapter)
        clients = tuple(range(self._spec.num_clients))
        self._courier.tell_the_end(Errand(self._paths, self._spec, run_id, next_round, "sft", "done", 0, clients))
