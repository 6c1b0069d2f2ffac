"""With how many examples a property is tried: a few in `make test`, all of them in `make test-long`.

Examples are drawn anew in every run, so the few of many runs are many.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable

from hypothesis import Phase, settings

ALL = os.environ.get("ALL_EXAMPLES") == "1"
_SHARE, _LEAST = 10, 3


def few(examples: int) -> int:
    """A tenth of the examples; all of them where they are asked for."""
    return examples if ALL else max(examples // _SHARE, min(examples, _LEAST))


def some(cases: Iterable[int], share: int = 8) -> list[int]:
    """An eighth of the cases, the first and the last among them, drawn anew; all where they are asked for."""
    known = list(cases)
    if ALL or len(known) < share:
        return known
    drawn = random.sample(known[1:-1], len(known) // share)
    return sorted({known[0], *drawn, known[-1]})


# A failing example is found and made small. Which of its parts matter is left out: tests that a suite catches a wrong
# rule fail on purpose, and explaining that took ten times as long as finding it.
_PHASES = [phase for phase in Phase if phase is not Phase.explain]

# No deadline: a busy machine is not a failure.
settings.register_profile("few", max_examples=few(100), deadline=None, phases=_PHASES)
settings.load_profile("few")
