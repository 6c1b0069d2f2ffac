"""`unmasked`: the masks taken off a sum, by shares of which the false ones are told and left out.

The client that dealt a secret said a digest of each share before any was opened, and a holder gives no share that its
digest does not fit. So a share without its digest is its holder's lie. Shares that fit their digests and do not give
the secret are the dealer's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fccl.display.words import plural
from fccl.errors import FederationError
from fccl.federation.open_sum import KeptSum, OpenSum
from fccl.messages.secure import OpenedShares, SealedShares, ShareOf
from fccl.privacy.cohort import mask_tag
from fccl.privacy.fixed_point import RING, Words
from fccl.privacy.masks import KEY_BYTES, own_stream, pair_stream, public_of, shared, signed
from fccl.privacy.shamir import joined, share_digest
from fccl.training.masking import digest_of

_MEND = "mend those clients and resume the run: its complete rounds are kept"
_ANEW = "start a new run without that client, from the last adapter (START_FROM): a client opens one sum of a round"
Shares = Mapping[int, bytes]  # of one secret, by their holders


@dataclass(frozen=True, eq=False)
class Unmasked:
    """A sum without masks, (d + 1,), and the clients that gave a false share of any secret, in order."""

    total: Words
    false_shares: tuple[int, ...]


def unmasked(found: OpenSum, replies: Sequence[OpenedShares]) -> Unmasked:
    """The sum of the survivors' vectors: their own masks are taken off, and what those that have dropped out would have
    cancelled.

    Raises `FederationError` with the clients whose fault it is where a secret has too few right shares.
    """
    kept, total = found.kept, found.total  # (d + 1,)
    cohort, false = kept.spec.cohort, set[int]()
    tag = mask_tag(cohort.tag(kept.session), kept.spec.members, kept.asked)
    seeds = _by_client((reply.client_id, reply.seeds) for reply in replies)
    keys = _by_client((reply.client_id, reply.masks) for reply in replies)
    for said in kept.shares:
        client = said.client_id
        if client in kept.survivors:
            seed = _secret(kept, client, seeds.get(client, {}), said.digest_of_seed, false)
            _require_right(kept, said, digest_of(seed) == said.seed_sha256)
            total = total - own_stream(seed, tag, client, len(total))
        else:
            key = _secret(kept, client, keys.get(client, {}), said.digest_of_key, false)
            _require_right(kept, said, public_of(key) == cohort.key_of(client).masks)
            for other in kept.survivors:
                stream = pair_stream(shared(key, cohort.key_of(other).masks), tag, client, other, len(total))
                total = total - signed(stream, other, client)
    return Unmasked(total & np.uint32(RING - 1), tuple(sorted(false)))


def _by_client(given: Iterable[tuple[int, Sequence[ShareOf]]]) -> Mapping[int, Shares]:
    """The shares of each client's secret."""
    found: dict[int, dict[int, bytes]] = {}
    for holder, shares in given:
        for each in shares:
            found.setdefault(each.client_id, {})[holder] = bytes.fromhex(each.share)
    return found


def _secret(kept: KeptSum, client: int, given: Shares, digest: Callable[[int], bytes], false: set[int]) -> bytes:
    """One client's secret, of as many right shares as the threshold. The holders of false ones are added to `false`.

    `digest` is that of a share by its holder's place in the cohort.
    """
    cohort = kept.spec.cohort
    places = {holder: place for place, holder in enumerate(cohort.clients)}
    right = {holder: share for holder, share in given.items() if share_digest(share) == digest(places[holder])}
    wrong = sorted(given.keys() - right.keys())
    false.update(wrong)
    if len(right) < cohort.threshold:
        raise _too_few_right(kept, client, len(right), wrong)
    try:
        return joined({holder: right[holder] for holder in sorted(right)[: cohort.threshold]})
    except ValueError:
        return bytes(KEY_BYTES)  # which is found to be wrong


def _too_few_right(kept: KeptSum, client: int, right: int, wrong: Sequence[int]) -> FederationError:
    """The error that names the clients with false shares; without any, the dealer of those that nobody could open."""
    left = f"{plural(right, 'right share')} of client {client}'s secret"
    needed = f"and {kept.spec.cohort.threshold} are needed"
    if not wrong:
        why = "the others cannot open theirs, or withhold them"
        again = f"resume the run; where that ends in the same way, client {client} has dealt them: {_ANEW}"
        return FederationError(f"{_round(kept)} has {left}, {needed}: {why}", again)
    named = f"client{'s' * (len(wrong) > 1)} {', '.join(map(str, wrong))}"
    return FederationError(
        f"{_round(kept)}: {named} gave a false share of client {client}'s secret; {left} came, {needed}", _MEND
    )


def _require_right(kept: KeptSum, said: SealedShares, is_right: bool) -> None:
    """Raises `FederationError` with the dealer of shares that fit their digests and do not give its secret."""
    if not is_right:
        raise FederationError(
            f"{_round(kept)}: client {said.client_id} dealt false shares of its own secret, so the sum stays closed",
            _ANEW,
        )


def _round(kept: KeptSum) -> str:
    return f"round {kept.session.round + 1}"
