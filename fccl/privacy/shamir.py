"""Shamir's shares of 32 bytes (Shamir 1979): so many of them give the secret again, and fewer say nothing of it.

The field is that of p = 2^256 + 297, the smallest prime above 2^256, so that any 32 bytes are an element. A share is
the value at one holder's point of a polynomial whose constant term is the secret, in 33 bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping

PRIME = 2**256 + 297
SECRET_BYTES = 32
SHARE_BYTES = 33  # an element may be as large as 2^256 + 296
DIGEST_BYTES = 16  # of a share: nobody finds another one of the same digest
_DRAWN_BYTES = 48  # of a coefficient: reduced, it is uniform but for 2^-127


def split(secret: bytes, threshold: int, holders: Iterable[int], draw: Callable[[int], bytes]) -> dict[int, bytes]:
    """The share of each holder, a number >= 0. Any `threshold` of them give the secret again.

    `draw` gives so many random bytes. Raises `ValueError` for a secret of another length, or fewer holders than the
    threshold.

    >>> import os
    >>> shares = split(b"s" * 32, 2, [0, 4, 7], os.urandom)
    >>> joined({7: shares[7], 0: shares[0]}) == b"s" * 32
    True
    """
    named = sorted(set(holders))
    if len(secret) != SECRET_BYTES or not 1 <= threshold <= len(named):
        raise ValueError(f"{threshold} of {len(named)} shares, of {len(secret)} bytes")
    drawn = (int.from_bytes(draw(_DRAWN_BYTES), "big") % PRIME for _ in range(threshold - 1))
    polynomial = [int.from_bytes(secret, "big"), *drawn]  # (threshold,), the constant term first
    return {holder: _value(polynomial, _point(holder)).to_bytes(SHARE_BYTES, "big") for holder in named}


def joined(shares: Mapping[int, bytes]) -> bytes:
    """The secret of which these are shares, by holder: as many as the threshold, or more.

    With fewer, or with a false one among them, the result is another number. Raises `ValueError` where that is no
    32 bytes.
    """
    points = {_point(holder): int.from_bytes(share, "big") for holder, share in shares.items()}
    total = sum(value * _at_zero(point, points) for point, value in points.items()) % PRIME
    if total >= 2 ** (8 * SECRET_BYTES):
        raise ValueError("these are no shares of 32 bytes")
    return total.to_bytes(SECRET_BYTES, "big")


def share_digest(share: bytes) -> bytes:
    """The hash by which a share is known before it is opened. It says nothing of one that was drawn.

    >>> share_digest(bytes(33)).hex() == share_digest(bytes(33)).hex() != share_digest(b"1" * 33).hex()
    True
    """
    return hashlib.sha256(b"fccl share of a secret" + share).digest()[:DIGEST_BYTES]


def _point(holder: int) -> int:
    """The holder's point; never 0, where the polynomial is the secret."""
    return holder + 1


def _value(polynomial: list[int], point: int) -> int:
    """By Horner's scheme."""
    value = 0
    for coefficient in reversed(polynomial):
        value = (value * point + coefficient) % PRIME
    return value


def _at_zero(point: int, points: Iterable[int]) -> int:
    """Lagrange's polynomial of one of the points, at 0."""
    above, below = 1, 1
    for other in points:
        if other != point:
            above, below = above * other % PRIME, below * (other - point) % PRIME
    return above * pow(below, -1, PRIME) % PRIME
