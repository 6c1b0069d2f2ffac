"""`Masking`: a client's part in secure sums. It answers `keys`, `shares` and `unmask`, and masks its update.

All its secrets are drawn from 32 bytes of the operating system in the client's private folder, by the session. So a
client that is killed and started again gives the same bytes. `SEED` feeds none of them.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from fccl.adapters.adapter import Adapter
from fccl.data.shards import ClientShard
from fccl.errors import UpdateRejected
from fccl.keys import Keys
from fccl.messages import ClientUpdate, FitTask, Service, StatusListener
from fccl.messages.secure import (
    KeysTask,
    OpenedShares,
    PublishedKeys,
    SealedShares,
    ShareOf,
    SharesTask,
    UnmaskTask,
    digests_of,
)
from fccl.privacy.cohort import Cohort, MaskedBy, MaskKeys, SecureSpec, Session, mask_tag, smallest_threshold
from fccl.privacy.fixed_point import Words, as_numbers, as_words
from fccl.privacy.helped import Helped
from fccl.privacy.masks import KEY_BYTES, masked, public_of, sealed, shared, unsealed
from fccl.privacy.mechanism import clipped_change, trained_numbers
from fccl.privacy.secrets import Secret, secret_of
from fccl.privacy.shamir import SHARE_BYTES, split

_PADDING = bytes(2)  # two shares, so padded, are base64 without a rest


@dataclass(frozen=True)
class Own:
    """One client's secrets of a session."""

    client_id: int
    session: Session
    secret: Secret

    @property
    def mask_key(self) -> bytes:
        """The private key of the masks that it shares with others."""
        return self._drawn("mask key")

    @property
    def share_key(self) -> bytes:
        """The private key that shares are sealed with."""
        return self._drawn("share key")

    def seed(self, tag: str) -> bytes:
        """The seed of the mask that it shares with nobody."""
        return self._drawn("seed", tag)

    def shares_of(self, secret: bytes, what: str, tag: str, cohort: Cohort) -> dict[int, bytes]:
        """Each client's share of one of its secrets."""
        draws = self.secret.draws(*self.session.parts, self.client_id, "shares", what, tag)
        return split(secret, cohort.threshold, cohort.clients, draws.content)

    def _drawn(self, *names: str) -> bytes:
        return self.secret.draws(*self.session.parts, self.client_id, *names).content(KEY_BYTES)


@dataclass
class Masking:
    """The secure sums of clients whose private folders are `folder`. With `keys` it believes no key of a session that
    its client has not signed. It refuses a sum that fewer clients than the share `threshold` can open, and one of
    fewer clients than `least`: of a sum of two, the other client knows the rest.
    """

    folder: Callable[[int], Path]
    keys: Keys | None = None
    threshold: float = 0.5
    least: int = 2

    def services(self) -> tuple[Service, ...]:
        """The answers to the three steps beside `fit`."""
        return KeysService(self), SharesService(self), UnmaskService(self)

    def published(self, session: Session, client_id: int) -> MaskKeys:
        """The client's public keys of a session, signed where there are keys. Raises `StorageError`."""
        own = self._own(session, client_id)
        made = MaskKeys(client_id=client_id, masks=public_of(own.mask_key), shares=public_of(own.share_key))
        signature = self.keys.sign(made.signed_content(session)) if self.keys else ""
        return made.model_copy(update={"signature": signature})

    def shares(self, session: Session, cohort: Cohort, client_id: int) -> SealedShares:
        """Shares of the client's mask key and of its seed, sealed for each client of the cohort, with their digests.

        Raises `UpdateRejected` where the cohort cannot be believed, or the keys are in use with another one.
        """
        own, tag = self._own(session, client_id), cohort.tag(session)
        self._require_cohort(session, cohort, client_id)
        self._ledger(client_id).share(session, tag)
        seed = own.seed(tag)
        of_key, of_seed = own.shares_of(own.mask_key, "key", tag, cohort), own.shares_of(seed, "seed", tag, cohort)
        sent = []
        for each in cohort.keys:
            content = of_key[each.client_id] + of_seed[each.client_id] + _PADDING
            closed = sealed(shared(own.share_key, each.shares), tag, client_id, each.client_id, content)
            sent.append(base64.b64encode(closed).decode())
        digests = tuple(digests_of(of_key[each], of_seed[each]) for each in cohort.clients)
        return SealedShares(client_id=client_id, seed_sha256=digest_of(seed), sealed=tuple(sent), digests=digests)

    def masked(self, task: FitTask, spec: SecureSpec, update: ClientUpdate, samples: int) -> ClientUpdate:
        """The update as it may leave: its change clipped, in fixed point, under all its masks.

        Raises `UpdateRejected` where the members cannot be believed, or its keys have masked for others, or another
        update.
        """
        session = spec.session(task.run_id, task.round, task.phase, task.adapter.sha256)
        words = _words(task, spec, update.adapter.load(), samples)  # (d + 1,)
        hidden = self._hidden(session, spec, update.client_id, words, asked_of(task, spec))  # (d + 1,)
        vector = task.trained.vector.clone()  # (numbers,)
        vector[trained(task)] = torch.from_numpy(as_numbers(hidden[:-1]))
        by = MaskedBy(nonce=spec.cohort.nonce, samples=int(hidden[-1]))
        return replace(update, adapter=Adapter.of_vector(vector, task.trained.form), masked=by)

    def opened(self, request: UnmaskTask, client_id: int) -> OpenedShares:
        """The client's shares: of each survivor's seed, and of the mask key of each member that has dropped out.

        A share that its sender has not sealed for this client, or that its digest does not fit, is left out. Raises
        `UpdateRejected` where this client has masked nothing for these members, or helped to open another sum of the
        round.
        """
        session, cohort = request.session, request.cohort
        self._require_cohort(session, cohort, client_id)
        if client_id not in request.survivors:
            raise UpdateRejected("this client is none of the survivors")
        self._require_enough(len(request.survivors))
        tag = cohort.tag(session)
        self._ledger(client_id).open(session, tag, request.members, request.survivors)
        found = {each.client_id: self._unsealed(session, cohort, each, client_id) for each in request.sealed}
        readable = {sender: content for sender, content in found.items() if content is not None}
        return OpenedShares(
            client_id=client_id,
            seeds=_named({one: readable[one][1] for one in request.survivors if one in readable}),
            masks=_named({one: readable[one][0] for one in request.dropped if one in readable}),
        )

    def _hidden(self, session: Session, spec: SecureSpec, client_id: int, words: Words, asked: str) -> Words:
        own, cohort = self._own(session, client_id), spec.cohort
        self._require_cohort(session, cohort, client_id)
        if client_id not in spec.members:
            raise UpdateRejected("this client is no member of the round's sum")
        self._require_enough(len(spec.members))
        tag = cohort.tag(session)
        others = [member for member in spec.members if member != client_id]
        secrets = {other: shared(own.mask_key, cohort.key_of(other).masks) for other in others}
        found = masked(words, client_id, mask_tag(tag, spec.members, asked), own.seed(tag), secrets)
        self._ledger(client_id).mask(session, tag, spec.members, hashlib.sha256(found.tobytes()).hexdigest())
        return found

    def _unsealed(
        self, session: Session, cohort: Cohort, said: SealedShares, client_id: int
    ) -> tuple[bytes, bytes] | None:
        """A sender's shares of its mask key and of its seed; None where they are not for this client to read, or not
        those that the server would know them by: what this client gives is held against their digests.
        """
        own, place = self._own(session, client_id), cohort.clients.index(client_id)
        secret, sender = shared(own.share_key, cohort.key_of(said.client_id).shares), said.client_id
        try:
            content = unsealed(
                secret, cohort.tag(session), sender, client_id, base64.b64decode(said.sealed[place], validate=True)
            )
        except UpdateRejected:
            return None
        of_key, of_seed = content[:SHARE_BYTES], content[SHARE_BYTES : 2 * SHARE_BYTES]
        return (of_key, of_seed) if digests_of(of_key, of_seed) == said.digests[place] else None

    def _require_cohort(self, session: Session, cohort: Cohort, client_id: int) -> None:
        """Raises `UpdateRejected` unless this client's own keys are in the cohort, enough clients are needed, and all
        keys are signed where there are keys.
        """
        mine = self.published(session, client_id)
        if cohort.nonce != session.nonce or mine not in cohort.keys:
            raise UpdateRejected("the cohort has not the keys that this client gave")
        self._require_enough(len(cohort.keys))
        least = smallest_threshold(len(cohort.keys), self.threshold)
        if cohort.threshold < least:
            raise UpdateRejected(
                f"{cohort.threshold} of {len(cohort.keys)} clients could open the sum, and this client wants {least} "
                "(SECURE_THRESHOLD)"
            )
        for each in cohort.keys if self.keys else ():
            if self.keys is not None and not each.is_signed(session, self.keys.public):
                raise UpdateRejected(f"client {each.client_id} has not signed its keys of this round")

    def _require_enough(self, clients: int) -> None:
        """Raises `UpdateRejected` where a sum of so many clients says too much of this one."""
        if clients < self.least:
            raise UpdateRejected(
                f"the sum would be of {clients} clients, and this client masks for {self.least} (MIN_CLIENTS)"
            )

    def _own(self, session: Session, client_id: int) -> Own:
        return Own(client_id, session, secret_of(self.folder(client_id))[0])

    def _ledger(self, client_id: int) -> Helped:
        return Helped(self.folder(client_id))  # read anew: another process may have answered for it since


@dataclass(frozen=True)
class KeysService:
    """Answers `keys`."""

    masking: Masking
    asked: ClassVar[type[KeysTask]] = KeysTask

    def answer(self, request: KeysTask, shard: ClientShard, on_status: StatusListener) -> PublishedKeys:
        """The client's public keys."""
        keys = self.masking.published(request.session, shard.client_id)
        return PublishedKeys(client_id=shard.client_id, keys=keys)


@dataclass(frozen=True)
class SharesService:
    """Answers `shares`."""

    masking: Masking
    asked: ClassVar[type[SharesTask]] = SharesTask

    def answer(self, request: SharesTask, shard: ClientShard, on_status: StatusListener) -> SealedShares:
        """The client's sealed shares."""
        return self.masking.shares(request.session, request.cohort, shard.client_id)


@dataclass(frozen=True)
class UnmaskService:
    """Answers `unmask`."""

    masking: Masking
    asked: ClassVar[type[UnmaskTask]] = UnmaskTask

    def answer(self, request: UnmaskTask, shard: ClientShard, on_status: StatusListener) -> OpenedShares:
        """The client's shares of the others' secrets."""
        return self.masking.opened(request, shard.client_id)


def trained(task: FitTask) -> torch.Tensor:
    """The places of the numbers that clients train: of all numbers of `task.trained`, (numbers,) of bool."""
    return trained_numbers(task.trained.form, task.train).bool()


def asked_of(task: FitTask, spec: SecureSpec) -> str:
    """A hash of all that the task's masked updates follow from. Masks of two clients cancel where both were asked the
    same: a server that has the others train on nothing, or clip to nothing, learns no single update.
    """
    said = [*task.question, spec.fixed.model_dump(), spec.clip]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def words_of(task: FitTask, adapter: Adapter) -> Words:
    """The masked words of an update, (d,). Raises `UpdateRejected` where a number stands for none."""
    return as_words(adapter.vector[trained(task)].numpy())


def digest_of(seed: bytes) -> str:
    """The hash by which a seed is known before it is opened."""
    return hashlib.sha256(b"fccl seed of a mask" + seed).hexdigest()


def _words(task: FitTask, spec: SecureSpec, adapter: Adapter, samples: int) -> Words:
    """The client's vector in fixed point, (d + 1,), of the d numbers that are trained."""
    change, _ = clipped_change(task.trained, adapter, spec.clip or float("inf"))  # (numbers,)
    numbers: NDArray[np.float64] = change[trained(task)].numpy()  # (d,)
    return spec.fixed.words(numbers, samples)


def _named(shares: dict[int, bytes]) -> tuple[ShareOf, ...]:
    return tuple(ShareOf(client_id=client, share=share.hex()) for client, share in sorted(shares.items()))
