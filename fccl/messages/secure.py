"""Requests of kind `secure`: the steps of a secure sum beside `fit`, which are `keys`, `shares` and `unmask`."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from fccl.adapters.adapter import Adapter
from fccl.messages.requests import Reply, Terms, only, read_terms, spelt
from fccl.privacy.cohort import MOST_CLIENTS, Cohort, Digits, MaskKeys, Nonce, Session, require_members
from fccl.privacy.shamir import DIGEST_BYTES, share_digest
from fccl.specs import ClientId, Phase, Round, RunId, Value

Sealed = Annotated[str, StringConstraints(pattern="^([A-Za-z0-9+/]{4}){28}$")]  # 84 bytes in base64
Digests = Annotated[str, StringConstraints(pattern="^[A-Za-z0-9+/]{43}=$")]  # 32 bytes in base64, of two shares
Share = Annotated[str, StringConstraints(pattern="^[0-9a-f]{66}$")]  # 33 bytes


class PublishedKeys(Reply):
    """The answer to `keys`."""

    keys: MaskKeys

    @model_validator(mode="after")
    def _are_its_own(self) -> Self:
        if self.keys.client_id != self.client_id:
            raise ValueError("the keys are another client's")
        return self


class SealedShares(Reply):
    """The answer to `shares`: for each client of the cohort, in its order, two shares that it alone can read, and their
    digests.

    By its digest a false share is told, and whose it is: a client opens no share that its sender's digests do not fit.
    """

    seed_sha256: Digits  # of the seed of its own mask, by which a wrong one is told
    sealed: tuple[Sealed, ...] = Field(max_length=MOST_CLIENTS)
    digests: tuple[Digests, ...] = Field(max_length=MOST_CLIENTS)  # of the share of its mask key, then of its seed

    @model_validator(mode="after")
    def _has_digests_of_all(self) -> Self:
        if len(self.digests) != len(self.sealed):
            raise ValueError("there are not as many digests as sealed shares")
        return self

    def digest_of_key(self, place: int) -> bytes:
        """The digest of the share of its mask key that is for the client at this place of the cohort."""
        return base64.b64decode(self.digests[place])[:DIGEST_BYTES]

    def digest_of_seed(self, place: int) -> bytes:
        """The digest of the share of its seed that is for the client at this place of the cohort."""
        return base64.b64decode(self.digests[place])[DIGEST_BYTES:]


def digests_of(key_share: bytes, seed_share: bytes) -> str:
    """The digests of one client's two shares as they travel."""
    return base64.b64encode(share_digest(key_share) + share_digest(seed_share)).decode()


class ShareOf(Value):
    """A share of one client's secret."""

    client_id: ClientId
    share: Share


class OpenedShares(Reply):
    """The answer to `unmask`: shares of the seeds of survivors, and of the mask keys of those that dropped out."""

    seeds: tuple[ShareOf, ...] = Field(default=(), max_length=MOST_CLIENTS)
    masks: tuple[ShareOf, ...] = Field(default=(), max_length=MOST_CLIENTS)


class _SessionTerms(Value):
    """The part that all steps share."""

    kind: Literal["secure"]
    run_id: RunId
    round: Round
    phase: Phase
    base_sha256: Digits
    nonce: Nonce


class _CohortTerms(_SessionTerms):
    """The part of the steps that follow `keys`."""

    cohort: Cohort

    @model_validator(mode="after")
    def _is_of_the_session(self) -> Self:
        if self.cohort.nonce != self.nonce:
            raise ValueError("the cohort is of another session")
        return self


class KeysTerms(_SessionTerms):
    """A `KeysTask`."""

    step: Literal[0]


class SharesTerms(_CohortTerms):
    """A `SharesTask`."""

    step: Literal[1]


class UnmaskTerms(_CohortTerms):
    """An `UnmaskTask`: every member of the sum is a survivor or has dropped out, and none is both."""

    step: Literal[2]
    survivors: tuple[ClientId, ...]
    dropped: tuple[ClientId, ...] = ()
    sealed: tuple[SealedShares, ...] = Field(max_length=MOST_CLIENTS)  # of the members

    @model_validator(mode="after")
    def _asks_for_one_secret_of_each(self) -> Self:
        if both := sorted(set(self.survivors) & set(self.dropped)):
            raise ValueError(f"it asks for both secrets of client {both[0]}, which would open its update")
        require_members(self.cohort, self.survivors)
        members = tuple(sorted({*self.survivors, *self.dropped}))
        require_members(self.cohort, members)
        if tuple(each.client_id for each in self.sealed) != members:
            raise ValueError("the sealed shares are not those of the members")
        if any(len(each.sealed) != len(self.cohort.keys) for each in self.sealed):
            raise ValueError("there are not as many sealed shares as clients")
        return self


@dataclass(frozen=True)
class _Step:
    """The part that all steps share."""

    run_id: str
    round: int
    phase: Phase
    base_sha256: str
    nonce: str
    kind: ClassVar[str] = "secure"

    @property
    def session(self) -> Session:
        """The attempt at the round that the step belongs to."""
        return Session(
            run_id=self.run_id, round=self.round, phase=self.phase, base_sha256=self.base_sha256, nonce=self.nonce
        )

    def adapters(self) -> Mapping[str, Adapter]:
        """No adapter."""
        return {}


@dataclass(frozen=True)
class KeysTask(_Step):
    """Asks each client for two public keys of this session."""

    step: ClassVar[int] = 0
    answered_by: ClassVar[type[PublishedKeys]] = PublishedKeys

    def terms(self) -> Terms:
        """The request as JSON."""
        return spelt(self, KeysTerms)

    @classmethod
    def from_terms(cls, terms: Terms, adapters: Mapping[str, Adapter]) -> Self:
        """The request again. Raises `UpdateRejected` unless the terms are just those of one."""
        said = read_terms(terms, KeysTerms, "the request for keys")
        only(adapters, set(), "the request")
        return cls(said.run_id, said.round, said.phase, said.base_sha256, said.nonce)


@dataclass(frozen=True)
class SharesTask(_Step):
    """Asks each client of the cohort for shares of its two secrets, sealed for each of them."""

    cohort: Cohort
    step: ClassVar[int] = 1
    answered_by: ClassVar[type[SealedShares]] = SealedShares

    def terms(self) -> Terms:
        """The request as JSON."""
        return spelt(self, SharesTerms)

    @classmethod
    def from_terms(cls, terms: Terms, adapters: Mapping[str, Adapter]) -> Self:
        """The request again. Raises `UpdateRejected` unless the terms are just those of one."""
        said = read_terms(terms, SharesTerms, "the request for shares")
        only(adapters, set(), "the request")
        return cls(said.run_id, said.round, said.phase, said.base_sha256, said.nonce, said.cohort)


@dataclass(frozen=True)
class UnmaskTask(_Step):
    """Asks the survivors for shares of each other's seeds, and of the mask keys of members that have dropped out."""

    cohort: Cohort
    survivors: tuple[int, ...]
    dropped: tuple[int, ...]
    sealed: tuple[SealedShares, ...]
    step: ClassVar[int] = 2
    answered_by: ClassVar[type[OpenedShares]] = OpenedShares

    @property
    def members(self) -> tuple[int, ...]:
        """The clients whose masks are in the sum."""
        return tuple(sorted({*self.survivors, *self.dropped}))

    def terms(self) -> Terms:
        """The request as JSON."""
        return spelt(self, UnmaskTerms)

    @classmethod
    def from_terms(cls, terms: Terms, adapters: Mapping[str, Adapter]) -> Self:
        """The request again. Raises `UpdateRejected` unless the terms are just those of one."""
        said = read_terms(terms, UnmaskTerms, "the request to unmask")
        only(adapters, set(), "the request")
        about = said.run_id, said.round, said.phase, said.base_sha256, said.nonce, said.cohort
        return cls(*about, said.survivors, said.dropped, said.sealed)
