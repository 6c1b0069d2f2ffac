"""Figures and states in words: one form for each kind of number, and no meaning that only a colour carries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

from fccl import phases
from fccl.display.plain_text import one_line
from fccl.display.words import DASH, MINUS, about, duration, loss, missing, plural
from fccl.records.run import RunInfo
from fccl.records.sent import saved_words
from fccl.registry import is_own
from fccl.view.values import ClientRow, ClientStanding, RunStatus, Standing

if TYPE_CHECKING:
    import pandas as pd

# Sources that move weights away from a prior, with a temperature of their own.
PRIOR_SOURCES = ("verified", "leave_one_out", "shapley")
NO_SOFTMAX = {  # sources that have no temperature, in words
    "tempered": "how much each update lowers the loss on the server's own examples, as far as these can tell, and with "
    "it the length of the whole step",
    "fltrust": "the cosine of each update with what the server learns from its own examples, all cut to its length",
    "fedlaw": "gradient steps on the server's examples",
    "fedlaw_gamma": "gradient steps on the server's examples, and with them the length of the whole step",
    "greedy_soup": "the greedy soup: the clients whose plain mean the server's examples like best",
    "lorahub": "a search over coefficients on the server's examples",
    "line_search": "samples, and the length of the step by a search on the server's examples",
    "fedawa": "how well the updates agree with their mean",
}
STANDING = (
    "Above 0 a client's updates have led uphill on the server's examples, in the mean of the phase's rounds so far. "
    "At 2 it is out, and it comes back at 0."
)
LONGEST_REASON = 240  # characters
MOST_NAMED = 10  # clients in a sentence
CLIENT_WORDS: dict[ClientStanding, str] = {
    "training": "▶ training",
    "done": "✓ done",
    "waiting": "○ waiting",
    "declined": "– declines",
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


def signed(value: float, decimals: int = 3) -> str:
    """A number whose sign is always shown, with a true minus sign."""
    text = f"{value:+,.{decimals}f}"
    return text.replace("-", MINUS)


def percent(value: float | None, decimals: int = 1) -> str:
    """A share of 1."""
    return DASH if value is None or missing(value) else f"{100 * value:.{decimals}f} %"


def server_learning(rounds: pd.DataFrame) -> str:
    """The change by the server's own training in the last of these rounds; empty where it does not train."""
    learned = rounds.dropna(subset=["learn_seconds"])
    if learned.empty:
        return ""
    last = learned.iloc[-1]
    unit, before, after = phases.of(last["phase"]).unit, last["aggregate_loss"], last["validation_loss"]
    losses = "" if missing(before) else f": validation loss {loss(before)} before, {loss(after)} after ({unit})"
    return (
        "After every aggregation the server trains the global adapter on its learn split. "
        f"Round {last['round'] + 1}{losses}; it took {last['learn_seconds']:.1f} s."
    )


def sentence(status: RunStatus, log_dir: str, silence_s: float | None = None) -> str:
    """The state of the run, as one sentence. `silence_s` is how long nothing was heard of it."""
    where = f"round {min(status.round + 1, status.total_rounds)} of {status.total_rounds}"
    after = f"{status.round} of {plural(status.total_rounds, 'round')} complete"
    match status.standing:
        case "waiting":
            return f"No run in {log_dir} yet."
        case "finished":
            return f"Finished: all {plural(status.total_rounds, 'round')} complete."
        case "interrupted":
            return f"Interrupted, with {after}."
        case "failed":
            return f"Failed, with {after}{': ' + reason(status.message) if status.message else '.'}"
        case "silent":
            since = f" for {duration(silence_s)}" if silence_s is not None else ""
            return f"Nothing heard{since}, with {after}."
    if status.phase == "done":
        return f"All {plural(status.total_rounds, 'round')} complete; evaluating on the test split."
    what = phases.of(status.phase).words if status.phase else "starting"
    parts = [f"{where[0].upper()}{where[1:]}, {what}", clients_done(status)]
    if status.seconds_left is not None:
        parts.append(f"{about(status.seconds_left)} left")
    return ", ".join(part for part in parts if part) + "."


def reason(message: str) -> str:
    """The reason for a failure, cut to the length of a heading. The log holds all of it."""
    line = one_line(message)
    return line if len(line) <= LONGEST_REASON else line[:LONGEST_REASON].rstrip() + " …"


def title(status: RunStatus) -> str:
    """The title of the browser's tab."""
    if status.standing == "running" and status.phase != "done" and status.total_rounds:
        return f"{status.round + 1}/{status.total_rounds} · FCCL"
    return f"{STANDING_WORDS[status.standing]} · FCCL"


def temperature_of(source: str) -> str:
    """The setting that holds the temperature of a source of contributions."""
    return "verify_temperature" if source in PRIOR_SOURCES else "contribution_temperature"


def scores_of(info: RunInfo | None) -> str:
    """The part that the scores of this run's rule have in the weights."""
    settings = info.settings if info else {}
    source = settings.get("contribution_source", "") if settings.get("contribution_mode") == "cognitive" else ""
    if source == "tempered":
        return "How far a client was raised or lowered: the logarithm of its weight over its share of the samples."
    if source in PRIOR_SOURCES:
        return "What moves the weights from the prior: a weight grows with the exponential of its score."
    if source in NO_SOFTMAX or not source or is_own(source):
        return "What the rule went by, a figure for each client."
    return "What the weights are the softmax of, before normalisation and temperature."


def verified(row: Mapping[Hashable, Any]) -> list[str]:
    """The gain and the cost of verification in one round of `ROUNDS`, in sentences."""
    took = f"verifying took {row['verify_seconds']:.1f} s of its {row['seconds']:.1f} s"
    before, after, unit = row["loss_prior"], row["loss_weights"], phases.of(row["phase"]).unit
    if missing(after):
        return [f"Round {row['round'] + 1}: {took}."]
    start = "no finite loss" if missing(before) else loss(before)
    return [
        f"Round {row['round'] + 1}: {start} with the prior, {loss(after)} with the verified weights ({unit}); {took}."
    ]


def clients_done(status: RunStatus) -> str:
    """ "2 of 3 clients done", of those that the open round asks."""
    counts = Counter(row.standing for row in status.clients)
    asked = len(status.clients) - counts["declined"]
    return f"{counts['done']} of {plural(asked, 'client')} done" if asked else ""


def client_state(row: ClientRow) -> str:
    """The state of one client, with its symbol: "✓ done", "– declines FedVA"."""
    phase = f" {phases.of(row.declines).name}" if row.declines else ""
    return CLIENT_WORDS[row.standing] + phase


def declines(rows: pd.DataFrame) -> str:
    """The clients that take no part in a phase, in sentences; empty where there are none. `rows` are `DECLINES`."""
    said = []
    for phase, each in rows.groupby("phase", sort=False)["client"]:
        clients = sorted(set(each.tolist()))
        who = ", ".join(map(str, clients[:MOST_NAMED])) + (" and more" if len(clients) > MOST_NAMED else "")
        verb = "declines" if len(clients) == 1 else "decline"
        said.append(
            f"Client{'s' * (len(clients) > 1)} {who} {verb} {phases.of(str(phase)).name}: nobody waits for that."
        )
    return " ".join(said)


def saved(rounds: pd.DataFrame) -> str:
    """The bytes that the adapters of all rounds took, beside whole ones; empty where those are as many."""
    found = rounds[["bytes_up", "bytes_down", "bytes_whole"]].sum()  # a NaN counts nothing
    return saved_words(*(int(total) for total in found))


def client_counts(status: RunStatus) -> str:
    """The clients that have not answered, by what they do, the most pressing first: "1 without heartbeat, 2
    training".
    """
    counts = Counter(row.standing for row in status.clients)
    order: tuple[tuple[ClientStanding, str], ...] = (
        ("failed", "failed"),
        ("dead", "without heartbeat"),
        ("late", "late"),
        ("training", "training"),
        ("waiting", "waiting"),
        ("declined", "not taking part"),
    )
    return ", ".join(f"{counts[standing]} {word}" for standing, word in order if counts[standing])
