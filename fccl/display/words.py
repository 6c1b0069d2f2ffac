"""Words for numbers, times and names: how every screen and page spells them."""

from __future__ import annotations

import difflib
import math
import time
from collections.abc import Iterable

DASH = "–"


def plain(value: float) -> str:
    """A positive number, with about three figures."""
    if value >= 1e6:
        return f"{value:.2e}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 100 else f"{value:.2f}"


MINUS = "−"


def missing(value: float | None) -> bool:
    return value is None or not math.isfinite(value)


def loss(value: float | None) -> str:
    """Three decimals; a dash where there is none."""
    return DASH if value is None or missing(value) else f"{value:,.3f}"


def effective(clients: float | None, of: int | None) -> str:
    """1 / Σ w² beside the number of clients that it is of."""
    if clients is None or missing(clients):
        return DASH
    return f"{clients:.1f}" if of is None else f"{clients:.1f} of {of}"


def duration(seconds: float | None) -> str:
    """The two largest units that matter: "8 s", "1 min 20 s", "2 h 5 min", "3 d 4 h"."""
    if seconds is None or missing(seconds):
        return DASH
    whole = max(0, round(seconds))
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit} {rest} {smaller}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def ago(seconds: float | None) -> str:
    """An age in its largest unit, so that it stands still: "8 s ago", "4 min ago", "2 h ago"."""
    if seconds is None or missing(seconds):
        return "never"
    return f"{' '.join(duration(seconds).split()[:2])} ago"


def about(seconds: float) -> str:
    """An estimate, no finer than it can be: to 5 s below a minute, to 10 s below ten, then to a minute."""
    step = 5 if seconds < 60 else 10 if seconds < 600 else 60
    return f"about {duration(max(step, step * round(seconds / step)))}"


def size(count: int) -> str:
    """Bytes, in steps of 1000."""
    if count < 1000:
        return f"{count} B"
    power = min(3, int(math.log10(count) / 3))
    value = count / 1000**power
    return f"{value:.{0 if value >= 100 else 1}f} {('kB', 'MB', 'GB')[power - 1]}"


def moment(seconds: float) -> str:
    """A time of day with its date, local; a dash for what is none, as another process may write it."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return DASH


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that looks most like `name`, if any does.

    >>> nearest("fed_round", ["seed", "fed_rounds"])
    'fed_rounds'
    """
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)), None)


def plural(count: int, thing: str) -> str:
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def named_clients(numbers: Iterable[int]) -> str:
    """Clients by name: `client 1, client 2`; empty for none."""
    return ", ".join(f"client {number}" for number in numbers)


def are(count: int, thing: str) -> str:
    """So many things with their verb: "1 round is", "2 rounds are"."""
    return f"{plural(count, thing)} {'is' if count == 1 else 'are'}"
