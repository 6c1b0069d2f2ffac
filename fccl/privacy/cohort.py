"""Values of a secure sum: the clients of a round with their public keys, and what a masked update is made for.

Secure aggregation (Bonawitz et al. 2017) has four steps: `keys`, `shares`, `fit` and `unmask`. A `Session` names a
round's attempt at them, a `Cohort` has the clients that gave keys, a `SecureSpec` those of them that gave shares too.
"""

from __future__ import annotations

import hashlib
import json
import math
from itertools import pairwise
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from fccl.keys import PublicKeys
from fccl.privacy.fixed_point import RING, FixedPoint
from fccl.specs import ClientId, Phase, Round, RunId, Value

MOST_CLIENTS = 75  # of a round: their sealed shares fit into a request of one MiB
Digits = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]  # 32 bytes
Nonce = Annotated[str, StringConstraints(pattern="^[0-9a-f]{32}$")]


class Session(Value):
    """One attempt at a round: the round, the adapter that it begins with, and a number that no other attempt has."""

    run_id: RunId
    round: Round
    phase: Phase
    base_sha256: Digits  # of the round's global adapter
    nonce: Nonce

    @property
    def parts(self) -> tuple[str, int, Phase, str, str]:
        """All of it, in order: what a client's secrets are drawn for."""
        return self.run_id, self.round, self.phase, self.base_sha256, self.nonce


class MaskKeys(Value):
    """A client's two public X25519 keys of a session: that of its masks, and that which its shares are sealed for."""

    client_id: ClientId
    masks: Digits
    shares: Digits
    signature: str = Field(default="", max_length=200)  # by the client's own key, where there are keys

    def signed_content(self, session: Session) -> bytes:
        """All that the signature is over."""
        said = [*session.parts, self.client_id, self.masks, self.shares]
        return f"fccl mask keys 1\n{json.dumps(said)}".encode()

    def is_signed(self, session: Session, public: PublicKeys) -> bool:
        """Whether the client has signed these keys for this session."""
        return public.is_of_client(self.client_id, self.signed_content(session), self.signature)


class Cohort(Value):
    """The clients of a session with their keys, in client order, and how many of them a sum needs: more than half."""

    nonce: Nonce
    threshold: int = Field(ge=2)
    keys: tuple[MaskKeys, ...] = Field(min_length=2, max_length=MOST_CLIENTS)

    @model_validator(mode="after")
    def _is_more_than_half(self) -> Self:
        if not len(self.keys) < 2 * self.threshold <= 2 * len(self.keys):
            raise ValueError(f"{self.threshold} is not more than half of {len(self.keys)} clients")
        if any(one >= other for one, other in pairwise(self.clients)):
            raise ValueError("the clients are not in order, each once")
        return self

    @classmethod
    def of(cls, nonce: str, keys: tuple[MaskKeys, ...], share: float = 0.5) -> Self:
        """With the smallest threshold of more than half that is at least this share."""
        return cls(nonce=nonce, threshold=smallest_threshold(len(keys), share), keys=keys)

    @property
    def clients(self) -> tuple[int, ...]:
        """Those that gave keys."""
        return tuple(each.client_id for each in self.keys)

    def key_of(self, client_id: int) -> MaskKeys:
        """One client's keys. Raises `KeyError` where it gave none."""
        return {each.client_id: each for each in self.keys}[client_id]

    def tag(self, session: Session) -> str:
        """A hash of the session and all keys: shares, and the seeds of self masks, are made for it alone."""
        return hashlib.sha256(json.dumps([*session.parts, self.model_dump()]).encode()).hexdigest()


class SecureSpec(Value):
    """The secure sum that a round's updates are masked for. It travels in the task.

    `members` are the clients of the cohort that gave shares: each masks its update with all others among them.
    """

    cohort: Cohort
    members: tuple[ClientId, ...]
    fixed: FixedPoint
    clip: float = Field(ge=0)  # L2 norm of a client's change; 0: it is clipped already

    @model_validator(mode="after")
    def _are_of_the_cohort(self) -> Self:
        require_members(self.cohort, self.members)
        return self

    def session(self, run_id: str, round_number: int, phase: Phase, base_sha256: str) -> Session:
        """The session, in the round of a task."""
        return Session(run_id=run_id, round=round_number, phase=phase, base_sha256=base_sha256, nonce=self.cohort.nonce)


class MaskedBy(Value):
    """The part of a masked update that is no adapter: its attempt at the round, and its masked number of examples."""

    nonce: Nonce
    samples: int = Field(ge=0, lt=RING)


def smallest_threshold(clients: int, share: float) -> int:
    """The smallest number of clients that is more than half of all, and at least this share of them.

    >>> [smallest_threshold(clients, 0.5) for clients in (2, 3, 4, 5)], smallest_threshold(20, 0.7)
    ([2, 2, 3, 3], 14)
    """
    return max(clients // 2 + 1, math.ceil(share * clients - 1e-9))


def require_members(cohort: Cohort, members: tuple[int, ...]) -> None:
    """Raises `ValueError` unless these are clients of the cohort in order, as many as a sum needs."""
    if any(one >= other for one, other in pairwise(members)) or not set(members) <= set(cohort.clients):
        raise ValueError("the members are not clients of the cohort in order, each once")
    if len(members) < cohort.threshold:
        raise ValueError(f"{len(members)} members are fewer than the threshold of {cohort.threshold}")


def mask_tag(tag: str, members: tuple[int, ...], asked: str) -> str:
    """A hash of cohort, members and what they were asked: masks are made for it alone. So those of clients that were
    asked different things do not cancel.
    """
    return hashlib.sha256(json.dumps([tag, members, asked]).encode()).hexdigest()
