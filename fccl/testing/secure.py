"""The toy federation under secure aggregation, and transports that lose the answers of some clients.

fed = secured(federation(clients=4), folder)
transport = masking_transport(ToyLearner(), Folders(root))
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fccl.federation.open_sum import OpenSums
from fccl.federation.rounds import Federation
from fccl.federation.secure_aggregation import SecureAggregation
from fccl.messages import ClientFailure, Given, Learner, Request
from fccl.privacy.fixed_point import FixedPoint
from fccl.testing.toy import shard
from fccl.training.masking import Masking
from fccl.training.private import PrivateLearner
from fccl.transports.in_process import InProcessTransport
from fccl.transports.wrapped import WrappedTransport

CLIP = 100.0  # which no change of the toy reaches
MOST = 8  # examples that count
Step = tuple[str, int]  # kind and step
KEYS, SHARES, FIT, UNMASK = ("secure", 0), ("secure", 1), ("fit", 0), ("secure", 2)


@dataclass(frozen=True)
class Folders:
    """Client i's private folder; travels by pickle."""

    root: Path

    def __call__(self, client_id: int) -> Path:
        """The folder."""
        return self.root / f"client_{client_id}"


def secured(fed: Federation, folder: Path, clip: float = CLIP, most: int = MOST, clipped: bool = False) -> Federation:
    """The federation with masked updates; `most` of 1 counts all clients alike. With `clipped` clients do not clip."""
    fixed = FixedPoint.of(bound=clip, most=most, clients=fed.plan.clients_per_round)
    sums = SecureAggregation(fixed, 0.0 if clipped else clip, fed.plan.min_clients, OpenSums(folder))
    return replace(fed, secure=sums)


def masking_learner(learner: Learner, folder: Folders) -> PrivateLearner:
    """The learner, masked where a task asks for it."""
    return PrivateLearner(learner, folder, masking=Masking(folder))


def masking_transport(learner: Learner, folder: Folders) -> InProcessTransport:
    """Toy clients of this process that take part in secure sums."""
    return InProcessTransport(masking_learner(learner, folder), shard, Masking(folder).services())


@dataclass(frozen=True, eq=False)
class Losing(WrappedTransport):
    """A transport that loses the answers of some clients to some steps."""

    lost: Mapping[Step, Collection[int]] = field(default_factory=dict)

    def ask(self, request: Request[Given], client_ids: Sequence[int]) -> Iterator[Given | ClientFailure]:
        """The answers, those that are lost as failures."""
        lost = self.lost.get((request.kind, request.step), ())
        asked = [client for client in client_ids if client not in lost]
        yield from super().ask(request, asked)
        yield from (ClientFailure(client, "lost") for client in client_ids if client in lost)
