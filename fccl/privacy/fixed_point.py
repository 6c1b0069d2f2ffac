"""Fixed-point numbers modulo 2^31: the form in which changes of adapters are masked and added up.

A client's vector is round(n Δ 2^bits) for each number of its change Δ, and last its n, as integers modulo 2^31. So the
sum over clients is exact, in any order, and has both parts of the weighted mean: Σ n Δ and Σ n. Nothing overflows while
the sizes of all vectors together stay below 2^30, which `FixedPoint.require_room` sees to before a run starts.

A word of 31 bits travels as a float32 of size below 2, so a masked update is an adapter file like every other.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fccl.errors import SettingsError, UpdateRejected
from fccl.specs import Value

RING_BITS = 31
RING: int = 2**RING_BITS
LARGEST_SUM: int = 2 ** (RING_BITS - 1) - 1  # in either direction
LARGEST_BOUND = 1e9
FEWEST_BITS = 6  # after the binary point
MOST_BITS = 60
Words = NDArray[np.uint32]  # each below RING
_REST = np.uint32(RING - 1)
_TOP = np.uint32(2**30)  # the highest bit of a word; it travels as the sign


class FixedPoint(Value):
    """The form of a federation's vectors: no number of a change is larger than `bound`, no client counts for more than
    `most` examples.

    >>> form = FixedPoint.of(bound=1.0, most=1, clients=3)
    >>> form.bits, form.largest
    (28, 268435456)
    >>> total = form.words(np.array([0.5, -0.25]), 1) + form.words(np.array([0.25, -0.25]), 1)
    >>> form.mean(total)
    (array([ 0.375, -0.25 ]), 2)
    """

    bound: float = Field(gt=0, le=LARGEST_BOUND)  # in the unit of the adapter's numbers
    most: int = Field(ge=1, le=10**9)  # 1: all clients count alike
    bits: int = Field(ge=0, le=MOST_BITS)  # after the binary point

    @classmethod
    def of(cls, bound: float, most: int, clients: int) -> FixedPoint:
        """With as many bits as a sum of so many clients has room for. Raises `SettingsError` where they are too few."""
        if bound > LARGEST_BOUND:
            raise SettingsError(
                f"a masked sum has no room for changes of up to {bound:g}",
                hint="lower DP_CLIP, DP_NOISE or SECURE_CLIP",
            )
        room = LARGEST_SUM / (clients * most * max(bound, 2.0**-MOST_BITS))
        bits = min(MOST_BITS, math.floor(math.log2(room)))
        form = cls(bound=bound, most=most, bits=max(FEWEST_BITS, bits))
        while form.bits > FEWEST_BITS and not form.has_room(clients):  # rounding may need the last one
            form = form.model_copy(update={"bits": form.bits - 1})
        form.require_room(clients)
        return form

    @property
    def largest(self) -> int:
        """The size of the largest integer of a client."""
        return round(math.ldexp(self.most * self.bound, self.bits))

    def has_room(self, clients: int) -> bool:
        """Whether no sum of so many clients can overflow."""
        return clients * max(self.largest, self.most) <= LARGEST_SUM

    def require_room(self, clients: int) -> None:
        """Raises `SettingsError`, with the numbers, where a sum of so many clients may overflow."""
        if not self.has_room(clients):
            raise SettingsError(
                f"{clients:,} clients of at most {self.most:,} examples, with changes of at most {self.bound:g} in "
                f"steps of 2^-{self.bits}, add up to {clients * self.largest:,}: more than the 2^{RING_BITS - 1} - 1 = "
                f"{LARGEST_SUM:,} of a masked sum",
                hint="lower SECURE_MAX_SAMPLES, SECURE_CLIP or CLIENTS_PER_ROUND, or use CONTRIBUTION_MODE=uniform",
            )

    def words(self, change: NDArray[np.float64], samples: int) -> Words:
        """A client's vector: of its change (d,) and its number of examples, capped, (d + 1,)."""
        counted = min(samples, self.most)
        within = np.clip(change, -self.bound, self.bound) * counted  # (d,)
        fixed = np.clip(np.rint(np.ldexp(within, self.bits)), -self.largest, self.largest)  # (d,)
        return np.append(fixed, counted).astype(np.int64).astype(np.uint32) & _REST

    def mean(self, total: Words) -> tuple[NDArray[np.float64], int]:
        """Σ n Δ / Σ n, (d,), and Σ n, of a sum of vectors (d + 1,). Raises `UpdateRejected` where Σ n is no count."""
        signed = (total & _REST).astype(np.int64)  # (d + 1,)
        signed = np.where(signed > LARGEST_SUM, signed - RING, signed)
        counted = int(signed[-1])
        if counted < 1:
            raise UpdateRejected("the numbers of examples add up to nothing")
        return np.ldexp(signed[:-1].astype(np.float64), -self.bits) / counted, counted


def as_numbers(words: Words) -> NDArray[np.float32]:
    """Words as finite float32 of size below 2: the highest bit is the sign, the exponent's highest bit stays 0."""
    pattern = ((words & _TOP) << np.uint32(1)) | (words & (_TOP - np.uint32(1)))
    return pattern.view(np.float32)


def as_words(numbers: NDArray[np.float32]) -> Words:
    """The words again. Raises `UpdateRejected` for a number that stands for none."""
    pattern = np.ascontiguousarray(numbers, dtype=np.float32).view(np.uint32)
    if np.any(pattern & _TOP):
        raise UpdateRejected("a number of the masked update is not below 2")
    return ((pattern >> np.uint32(1)) & _TOP) | (pattern & (_TOP - np.uint32(1)))
