"""Seeds by name: one for each purpose."""

from __future__ import annotations

import hashlib


def named_seed(seed: int, *names: object) -> int:
    """A seed in [0, 2^63) for one named purpose, e.g. `named_seed(42, "sft", round, client)`.

    Hashing keeps the draws of one purpose independent of how many draws another one makes.
    """
    text = "/".join(str(name) for name in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
