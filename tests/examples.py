"""With how many examples a property is tried: a few in `make test`, all of them in `make test-long`.

Examples are drawn anew in every run, so the few of many runs are many.
"""

from __future__ import annotations

import os

from hypothesis import settings

ALL = os.environ.get("ALL_EXAMPLES") == "1"
_SHARE, _LEAST = 5, 5


def few(examples: int) -> int:
    """A fifth of the examples; all of them where they are asked for."""
    return examples if ALL else max(examples // _SHARE, min(examples, _LEAST))


settings.register_profile("few", max_examples=few(100), deadline=None)  # a busy machine is no failure
settings.load_profile("few")
