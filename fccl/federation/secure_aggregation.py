"""`SecureAggregation`: a round whose server learns the sum of its clients' updates, and no single one.

Bonawitz et al. 2017, over the steps of a transport: `keys`, `shares`, `fit`, `unmask`. From the moment at which the
masked sum is known, the open round is on the disk. A server that is killed then asks for the same shares again, and for
no other: a client opens one sum of a round.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from fccl.adapters.adapter import Adapter
from fccl.errors import FederationError, UpdateRejected
from fccl.federation.arrived import file_length
from fccl.federation.gathering import gathered
from fccl.federation.open_sum import OpenSum, OpenSums
from fccl.federation.quorum import reasons, too_few
from fccl.federation.state import RoundResult
from fccl.federation.unmasking import Unmasked, unmasked
from fccl.messages import Answer, ClientFailure, ClientUpdate, FitTask, Reply, Request
from fccl.messages.secure import KeysTask, OpenedShares, PublishedKeys, SealedShares, SharesTask
from fccl.privacy.cohort import Cohort, SecureSpec, Session
from fccl.privacy.fixed_point import RING, FixedPoint, Words
from fccl.privacy.mechanism import moved
from fccl.records.secure import SecureRound
from fccl.training.masking import asked_of, trained, words_of
from fccl.transports.protocol import Transport

RESUME = "mend the clients and resume the run: its complete rounds are kept"
_WITHHELD = {"clients": (), "weights": (), "scores": (), "contributions": (), "counted": None, "lora_error": None}
Replied = TypeVar("Replied", bound=Reply)
Judge = Callable[[FitTask, Answer], Answer]
Hear = Callable[[Answer], None]


@dataclass(frozen=True, eq=False)
class SecureSum:
    """A round's updates as one: the round's adapter moved by the weighted mean of their changes, and what the record
    says of it.
    """

    adapter: Adapter
    excluded: list[ClientFailure]
    said: SecureRound
    clip: float | None = None  # no clip adapts

    @property
    def none(self) -> tuple[list[ClientUpdate], list[ClientFailure]]:
        """The single updates that are known, none, and the clients that have no part in the sum."""
        return [], self.excluded

    def shown(self, result: RoundResult) -> RoundResult:
        """The round without weights, which nobody knows."""
        record, clients = result.record, len(self.said.clients)
        sent = record.sent and record.sent.model_copy(update={"up": clients * file_length(result.inputs.task.trained)})
        said = _WITHHELD | {"effective_clients": 1.0, "secure": self.said, "sent": sent}
        return replace(result, record=record.model_copy(update=said), counted=None)


@dataclass(frozen=True, eq=False)
class SecureAggregation:
    """The secure sums of a run. `clip` is the L2 norm that clients clip their changes to; 0: they have clipped them.

    `min_clients` is the least number of updates of a round, `sums` where the open one is kept, `threshold` the share of
    a round's clients that a sum needs.
    """

    fixed: FixedPoint
    clip: float
    min_clients: int
    sums: OpenSums
    threshold: float = 0.5

    def summed(
        self, task: FitTask, clients: Sequence[int], transport: Transport, judge: Judge, hear: Hear
    ) -> SecureSum:
        """The four steps with these clients. Raises `FederationError` where too few are left after any of them."""
        found = self.sums.of(task)
        if found is None:
            found = self._masked(task, clients, transport, judge, hear)
            self.sums.keep(found)
        opened = self._opened(task, found, transport)
        change = torch.zeros(task.trained.vector.shape, dtype=torch.float64)  # (numbers,)
        try:
            change[trained(task)] = torch.from_numpy(self.fixed.mean(opened.total)[0])
        except UpdateRejected as error:
            raise FederationError(f"round {task.round + 1}: {error}", RESUME) from error
        return SecureSum(moved(task.trained, change), found.failures(), self._said(found, opened.false_shares))

    def _masked(self, task: FitTask, clients: Sequence[int], transport: Transport, judge: Judge, hear: Hear) -> OpenSum:
        """The masked sum, after the first three steps."""
        session = _session(task, os.urandom(16).hex())
        keys, failures = self._asked(transport, KeysTask(*session.parts), clients, PublishedKeys, hear)
        self._require(task, len(keys), failures)
        cohort = Cohort.of(session.nonce, tuple(reply.keys for reply in keys), self.threshold)
        request = SharesTask(*session.parts, cohort)
        shares, silent = self._asked(transport, request, cohort.clients, SealedShares, hear)
        shares, bad = _complete(shares, cohort)
        failures += silent + bad
        self._require(task, len(shares), failures, cohort)
        spec = SecureSpec(
            cohort=cohort, members=tuple(reply.client_id for reply in shares), fixed=self.fixed, clip=self.clip
        )
        asked = replace(task, secure=spec)
        updates, excluded = gathered(asked, spec.members, transport, partial(judge, asked), hear)
        failures += excluded
        self._require(task, len(updates), failures, cohort)
        survivors = tuple(update.client_id for update in updates)
        return OpenSum.of(session, spec, asked_of(task, spec), shares, survivors, failures, _total(task, updates))

    def _asked(
        self, transport: Transport, request: Request[Replied], clients: Sequence[int], kind: type[Replied], hear: Hear
    ) -> tuple[list[Replied], list[ClientFailure]]:
        """One reply or failure of each client, in client order."""
        replies: dict[int, Replied] = {}
        failures: dict[int, ClientFailure] = {}
        for answer in transport.ask(request, clients):
            if answer.client_id in clients and isinstance(answer, kind):
                replies.setdefault(answer.client_id, answer)
            elif isinstance(answer, ClientFailure):
                failures[answer.client_id] = answer
        missing = [client for client in clients if client not in replies]
        silent = [failures.get(client, ClientFailure(client, "no answer")) for client in missing]
        for failure in silent:
            hear(failure)
        return [replies[client] for client in sorted(replies)], silent

    def _require(
        self, task: FitTask, have: int, failures: Sequence[ClientFailure], cohort: Cohort | None = None
    ) -> None:
        """Raises `FederationError` where so many clients are too few for the run, or for the sum."""
        least = max(2, self.min_clients)
        if have < least:
            raise too_few(task, have, least, failures)
        if cohort is not None and have < cohort.threshold:
            raise _too_few_left(task, have, cohort, failures)

    def _opened(self, task: FitTask, found: OpenSum, transport: Transport) -> Unmasked:
        """The sum without masks, once enough survivors have given their shares."""
        replies, silent = self._asked(
            transport, found.request(), found.kept.survivors, OpenedShares, lambda failure: None
        )
        if len(replies) < found.kept.spec.cohort.threshold:
            raise _too_few_left(task, len(replies), found.kept.spec.cohort, silent)
        return unmasked(found, replies)

    def _said(self, found: OpenSum, false_shares: tuple[int, ...]) -> SecureRound:
        return SecureRound(
            clients=found.kept.survivors,
            dropped=found.dropped,
            false_shares=false_shares,
            cohort=len(found.kept.spec.cohort.keys),
            threshold=found.kept.spec.cohort.threshold,
            bound=self.fixed.bound,
            most=self.fixed.most,
            bits=self.fixed.bits,
        )


def _total(task: FitTask, updates: Sequence[ClientUpdate]) -> Words:
    """The sum of masked updates, (d + 1,). Loads one at a time."""
    total = np.zeros(int(trained(task).sum()) + 1, dtype=np.uint32)
    for update in updates:
        samples = update.masked.samples if update.masked else 0
        total = total + np.append(words_of(task, update.adapter.load()), np.uint32(samples))
    return total & np.uint32(RING - 1)


def _complete(replies: Sequence[SealedShares], cohort: Cohort) -> tuple[list[SealedShares], list[ClientFailure]]:
    """Those with a share for each client of the cohort, and the others as failures."""
    good = [reply for reply in replies if len(reply.sealed) == len(cohort.keys)]
    bad = [reply for reply in replies if len(reply.sealed) != len(cohort.keys)]
    return good, [ClientFailure(reply.client_id, "its shares are not for all clients") for reply in bad]


def _too_few_left(task: FitTask, have: int, cohort: Cohort, failures: Sequence[ClientFailure]) -> FederationError:
    return FederationError(
        f"round {task.round + 1}: {have} of {len(cohort.keys)} clients are left, and their masked sum needs "
        f"{cohort.threshold}{reasons(failures)}",
        RESUME,
    )


def _session(task: FitTask, nonce: str) -> Session:
    return Session(run_id=task.run_id, round=task.round, phase=task.phase, base_sha256=task.adapter.sha256, nonce=nonce)
