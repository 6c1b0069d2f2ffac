"""Figures and states in words: one form for each kind of number, and no meaning that only a colour carries."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Any

from fccl.plain_text import one_line
from fccl.specs import Phase
from fccl.view.values import ClientStanding, Glance, Standing

DASH = "–"  # noqa: RUF001
MINUS = "−"  # noqa: RUF001
PHASE_WORDS: dict[str, str] = {"sft": "instruction phase", "va": "preference phase"}
PHASE_NAMES: dict[Phase, str] = {"sft": "FedIT (SFT)", "va": "FedVA (DPO)"}
UNITS: dict[Phase, str] = {"sft": "nats per response token", "va": "nats per pair"}
PRIOR_SOURCES = ("verified", "leave_one_out")  # they move weights that are there before, with a temperature of their own
LONGEST_REASON = 240  # characters
CLIENT_WORDS: dict[ClientStanding, str] = {
    "training": "▶ training",
    "done": "✓ done",
    "waiting": "○ waiting",
    "late": "◷ late",
    "dead": "✕ no heartbeat",
    "failed": "! failed",
}
STANDING_WORDS: dict[Standing, str] = {
    "waiting": "○ waiting",
    "running": "▶ running",
    "silent": "◷ silent",
    "finished": "✓ finished",
    "interrupted": "‖ interrupted",
    "failed": "! failed",
}


def missing(value: float | None) -> bool:
    return value is None or not math.isfinite(value)


def loss(value: float | None) -> str:
    """Three decimals; a dash where there is none."""
    return DASH if value is None or missing(value) else f"{value:,.3f}"


def signed(value: float, decimals: int = 3) -> str:
    """With a sign that is always there, and a real minus."""
    text = f"{value:+,.{decimals}f}"
    return text.replace("-", MINUS)


def percent(value: float | None, decimals: int = 1) -> str:
    """A share of 1."""
    return DASH if value is None or missing(value) else f"{100 * value:.{decimals}f} %"


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


def plural(count: int, thing: str) -> str:
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def sentence(glance: Glance, log_dir: str, silence_s: float | None = None) -> str:
    """How the run is going, as one sentence. `silence_s` is how long nothing was heard of it."""
    where = f"round {min(glance.round + 1, glance.total_rounds)} of {glance.total_rounds}"
    after = f"{glance.round} of {plural(glance.total_rounds, 'round')} complete"
    match glance.standing:
        case "waiting":
            return f"No run in {log_dir} yet."
        case "finished":
            return f"Finished: all {plural(glance.total_rounds, 'round')} complete."
        case "interrupted":
            return f"Interrupted, with {after}."
        case "failed":
            return f"Failed, with {after}{': ' + reason(glance.message) if glance.message else '.'}"
        case "silent":
            since = f" for {duration(silence_s)}" if silence_s is not None else ""
            return f"Nothing heard{since}, with {after}."
    if glance.phase == "done":
        return f"All {plural(glance.total_rounds, 'round')} complete; evaluating on the test split."
    parts = [f"{where[0].upper()}{where[1:]}, {PHASE_WORDS.get(glance.phase or '', 'starting')}", clients_done(glance)]
    if glance.seconds_left is not None:
        parts.append(f"{about(glance.seconds_left)} left")
    return ", ".join(part for part in parts if part) + "."


def reason(message: str) -> str:
    """Why a run failed, as a heading can hold it. The log has all of it."""
    line = one_line(message)
    return line if len(line) <= LONGEST_REASON else line[:LONGEST_REASON].rstrip() + " …"


def title(glance: Glance) -> str:
    """What the browser's tab says."""
    if glance.standing == "running" and glance.phase != "done" and glance.total_rounds:
        return f"{glance.round + 1}/{glance.total_rounds} · FCCL"
    return f"{STANDING_WORDS[glance.standing]} · FCCL"


def temperature_of(source: str) -> str:
    """The setting that holds the temperature of a source of contributions."""
    return "verify_temperature" if source in PRIOR_SOURCES else "contribution_temperature"


def verified(row: Mapping[Hashable, Any]) -> list[str]:
    """What verification won and took in one round of `ROUNDS`, in sentences."""
    took = f"verifying took {row['verify_seconds']:.1f} s of its {row['seconds']:.1f} s"
    before, after, unit = row["loss_prior"], row["loss_weights"], UNITS[row["phase"]]
    if missing(after):
        return [f"Round {row['round'] + 1}: {took}."]
    start = "no finite loss" if missing(before) else loss(before)
    return [f"Round {row['round'] + 1}: {start} with the prior, {loss(after)} with the verified weights ({unit}); {took}."]


def clients_done(glance: Glance) -> str:
    """ "2 of 3 clients done", of those that the open round asks."""
    counts = Counter(row.standing for row in glance.clients)
    return f"{counts['done']} of {plural(len(glance.clients), 'client')} done" if glance.clients else ""


def client_counts(glance: Glance) -> str:
    """What those clients do that have not answered, the most pressing first: "1 without heartbeat, 2 training"."""
    counts = Counter(row.standing for row in glance.clients)
    order: tuple[tuple[ClientStanding, str], ...] = (
        ("failed", "failed"),
        ("dead", "without heartbeat"),
        ("late", "late"),
        ("training", "training"),
        ("waiting", "waiting"),
    )
    return ", ".join(f"{counts[standing]} {word}" for standing, word in order if counts[standing])
