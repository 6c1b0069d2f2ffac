"""The run in five figures, or six."""

from __future__ import annotations

from collections import Counter

import streamlit as st

from fccl import phases
from fccl.display import words
from fccl.view import sentences
from fccl.view.values import RunStatus, RunView
from fccl.view.watched import watched_words


def show(view: RunView, found: RunStatus, now: float) -> None:
    """Tiles that wrap on a narrow screen; the result's is there where PATIENCE or RESULT_ROUND=best has a say in it."""
    with st.container(key="tiles"):
        validation(view, found)
        accuracy(view, found)
        effective(found)
        result(view)
        clients(found)
        time_spent(view, found, now)


def validation(view: RunView, found: RunStatus) -> None:
    """The validation loss, against the base model in SFT rounds and against the reference policy in VA rounds."""
    phase = found.validation_phase
    start = found.base_loss if phase != "va" else phases.start_loss(phase, view.preference)
    label = {"va": "Validation preference loss", "sft": "Validation loss"}.get(
        phase or "", "Validation loss of the base"
    )
    value = found.validation_loss if phase else found.base_loss
    against = value - start if phase and value is not None and start is not None else None
    st.metric(
        label,
        words.loss(value),
        None if against is None else round(against, 3),
        delta_color="inverse",
        delta_description=f"from {words.loss(start)}" if against is not None else None,
        help=help_for(phase, start),
        border=True,
    )


def help_for(phase: str | None, start: float | None) -> str:
    if phase == "va":
        said = "Loss of the global adapter on the server's validation pairs, a pair; lower is better."
        reference = f"that of the reference policy, which is the adapter after the SFT rounds: {words.loss(start)}"
        return said if start is None else f"{said} It begins at {reference}."
    return (
        "Loss of the global adapter on the server's validation split, in nats per response token; lower is better. "
        "It begins at the base model's."
    )


def accuracy(view: RunView, found: RunStatus) -> None:
    """Preference accuracy; VA rounds only."""
    values = view.rounds["preference_accuracy"].dropna().to_numpy()
    change = None if len(values) < 2 else round(100 * float(values[-1] - values[-2]), 1)
    st.metric(
        "Preference accuracy",
        sentences.percent(found.preference_accuracy),
        change,
        delta_description="points in a round" if change is not None else None,
        help="Share of validation pairs whose chosen response the global model finds likelier. Measured in the "
        "preference phase.",
        border=True,
    )


def effective(found: RunStatus) -> None:
    """The number of equally heavy clients that the weights are worth."""
    st.metric(
        "Effective clients",
        words.effective(found.effective_clients, found.aggregated),
        help="1 / Σw² of the last round: as many clients as equal weights would need for the same concentration.",
        border=True,
    )


def result(view: RunView) -> None:
    """The round whose adapter is the result of the phase, and how long nothing was gained."""
    if (said := watched_words(view)) is None:
        return
    st.metric(
        f"Result of {said.phase}" if said.phase else "Result",
        said.result,
        said.waited or None,
        delta_color="off",
        delta_arrow="off",
        help=" ".join(
            (
                "The round whose adapter is the phase's result, by the validation split alone. A round gains when the "
                "validation loss falls by more than the noise of that fall.",
                *said.ends,
            )
        ),
        border=True,
    )


def clients(found: RunStatus) -> None:
    """The number of clients that have answered, and what the others do."""
    counts = Counter(row.standing for row in found.clients)
    pressing = counts["failed"] + counts["dead"] + counts["late"]
    st.metric(
        "Clients done",
        f"{counts['done']} of {len(found.clients)}" if found.clients else words.DASH,
        sentences.client_counts(found) or None,
        delta_color="inverse" if pressing else "off",
        delta_arrow="off",
        help="Clients that have answered in this round, and what the others are doing. The Clients tab has a row for "
        "every one.",
        border=True,
    )


def time_spent(view: RunView, found: RunStatus, now: float) -> None:
    """The time since the start, and the time that is left."""
    end = last_sign(view)
    since = (
        now - view.written if found.standing in ("running", "silent") and view.written is not None else 0.0
    )  # by this clock, the rest by the server's
    elapsed = (
        None if view.info is None else (view.info.created if end is None else end) - view.info.created + max(0.0, since)
    )
    left = f"{words.about(found.seconds_left)} left" if found.seconds_left is not None else None
    st.metric(
        "Time",
        words.duration(elapsed),
        left,
        delta_color="off",
        delta_arrow="off",
        help="Since the run started.",
        border=True,
    )


def last_sign(view: RunView) -> float | None:
    """The time of the run's last record."""
    times = [event.time for event in view.events] + ([float(view.rounds["time"].iloc[-1])] if len(view.rounds) else [])
    return max(times, default=None)
