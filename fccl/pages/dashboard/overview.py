"""The first tab: losses, clients at work, weights, preference accuracy."""

from __future__ import annotations

from typing import Literal

import streamlit as st

from fccl import phases
from fccl.pages.dashboard import clients, influence, privacy
from fccl.pages.dashboard.readers import Hub
from fccl.pages.dashboard.widgets import chart, heading, note
from fccl.specs import Phase
from fccl.view import charts, sentences
from fccl.view.values import RunView

MANY = 12  # more clients are drawn as a band, and single ones can be picked out
LOW_PX = 170  # plots that leave room on the first screen
PHASES: tuple[Phase, ...] = ("sft", "va")


def show(hub: Hub, view: RunView) -> None:
    """Losses beside the clients' heartbeats; below them weights, preference accuracy, and the privacy
    that is spent.
    """
    phase, highlight = controls(view)
    first, second, third = st.columns(3, gap="medium")
    with first:
        client_losses(hub, view, phase, highlight)
    with second:
        validation(hub, view, phase)
    with third:
        heading("Clients now")
        clients.beats(hub, view.paths, clients.BRIEF)
    left, right = st.columns(2, gap="medium")
    with left:
        influence.weights(hub, view, height=LOW_PX)
    with right:
        accuracy(hub, view)
    privacy.show(view)


def controls(view: RunView) -> tuple[Phase, tuple[int, ...]]:
    """The chosen phase, and the clients to pick out. The phase follows the run until a reader chooses one."""
    seen = [phase for phase in PHASES if (view.rounds["phase"] == phase).any()]
    numbers = sorted(int(client) for client in view.shares["client"].unique())
    if len(seen) < 2 and len(numbers) <= MANY:
        return (seen or ["sft"])[0], ()
    with st.container(horizontal=True, vertical_alignment="bottom", key="controls"):
        phase = choose_phase(view, seen)
        picked = (
            st.multiselect("Pick out clients", numbers, key="picked", max_selections=MANY, width=320)
            if len(numbers) > MANY
            else []
        )
    return phase, tuple(picked)


def choose_phase(view: RunView, seen: list[Phase]) -> Phase:
    """The phase that the run is in, or the one that was chosen for this run."""
    if len(seen) < 2:
        return (seen or ["sft"])[0]
    if st.session_state.get("phase chosen for") != view.run_id:
        st.session_state["phase"] = seen[-1]

    def remember() -> None:
        st.session_state["phase chosen for"] = view.run_id

    name = phases.title
    hidden: Literal["collapsed"] = "collapsed"  # a screen reader still says it
    chosen = st.segmented_control(
        "Phase", PHASES, format_func=name, key="phase", required=True, on_change=remember, label_visibility=hidden
    )
    return chosen or seen[-1]


def client_losses(hub: Hub, view: RunView, phase: Phase, highlight: tuple[int, ...]) -> None:
    """The losses that clients report."""
    says = f"Loss that each client reported by round, {phases.title(phase)}, in {phases.of(phase).unit}"
    later = "The clients' losses appear when the first round is complete."
    chart(
        hub,
        view,
        "Loss by client",
        lambda: charts.client_losses(view, phase, highlight),
        says,
        later,
        phase,
        highlight,
        height=LOW_PX,
    )


def validation(hub: Hub, view: RunView, phase: Phase) -> None:
    """The validation loss by round."""
    says = (
        f"Loss of the global adapter on the server's validation split by round, {phases.title(phase)}, in "
        f"{phases.of(phase).unit}"
    )
    later = "The validation loss appears when the first round is complete."
    chart(hub, view, "Validation loss", lambda: charts.validation_loss(view, phase), says, later, phase, height=LOW_PX)
    if said := sentences.server_learning(view.rounds[view.rounds["phase"] == phase]):
        note(said)


def accuracy(hub: Hub, view: RunView) -> None:
    """The share of pairs whose chosen response is the likelier one."""
    says = "Share of validation pairs whose chosen response is the likelier one, by round"
    later = "The preference accuracy appears after the first preference round."
    chart(hub, view, "Preference accuracy", lambda: charts.preference_accuracy(view), says, later, height=LOW_PX)
