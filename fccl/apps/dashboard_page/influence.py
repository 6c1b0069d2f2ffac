"""Who has how much influence on the global adapter, and why."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from fccl.apps.dashboard_page import words
from fccl.apps.dashboard_page.hub import Hub
from fccl.apps.dashboard_page.panels import chart, heading, note, table
from fccl.view import charts
from fccl.view.values import RunView

LATER = "Appears when the first round is complete."
SOURCES = {
    "data_size": "samples",
    "loss_inverse": "1 / loss, as the clients report it",
    "data_loss_combined": "samples / loss, as the clients report it",
    "verified": "how much each update lowers the loss on the server's validation split",
    "validation_loss": "1 / loss of each update on the server's validation split",
    "leave_one_out": "what the server's validation loss gains by each update",
}
PRIOR_SOURCES = ("verified", "leave_one_out")  # they move weights that are there before, with a temperature of their own


def show(hub: Hub, view: RunView) -> None:
    """Weights, against samples, the scores behind them, and the last round in figures."""
    note(how(view))
    left, right = st.columns(2, gap="medium")
    with left:
        weights(hub, view)
        chart(hub, view, "Scores", lambda: charts.scores(view), "Contribution score of every client by round; the weights are their softmax", LATER)
    with right:
        chart(
            hub,
            view,
            "Weight against samples",
            lambda: charts.weight_against_samples(view),
            "Mean weight of every client against its share of the samples: who gained and who lost influence",
            LATER,
        )
        chart(
            hub,
            view,
            "Effective clients",
            lambda: charts.effective_clients(view),
            "Effective number of clients, one over the sum of squared weights, and the number aggregated, by round",
            LATER,
        )
    chart(hub, view, "Weights as a heat map", lambda: charts.weights_heat(view), "Heat map of FCCL weights by client and round", LATER)
    last_round(view)


def weights(hub: Hub, view: RunView, height: int | None = None) -> None:
    """The weights of every round, stacked."""
    says = "Stacked area of every client's FCCL weight by round"
    chart(hub, view, "FCCL weights", lambda: charts.weights_area(view), says, "The weights appear when the first round is complete.", height=height)


def how(view: RunView) -> str:
    """The rule of this run in a sentence."""
    if view.info is None:
        return ""
    settings = view.info.settings
    match settings.get("contribution_mode"):
        case "uniform":
            return "Every client has the same weight (CONTRIBUTION_MODE=uniform)."
        case "fedavg":
            return "Weights in proportion to samples (CONTRIBUTION_MODE=fedavg)."
    source = settings.get("contribution_source", "")
    heat = settings.get("verify_temperature" if source in PRIOR_SOURCES else "contribution_temperature", words.DASH)
    scores = f"{SOURCES.get(source, source)} (CONTRIBUTION_SOURCE={source})"
    return f"FCCL: the weights are the softmax of the scores, at temperature {heat}. Scores: {scores}."


def last_round(view: RunView) -> None:
    """Weight, share and score of every client in the last round."""
    if view.shares.empty:
        return
    number = int(view.rounds["round"].iloc[-1])
    rows = view.shares[view.shares["round"] == number]
    heading(f"Round {number + 1} in figures")
    change = 100 * (rows["weight"] - rows["sample_share"])
    shown = pd.DataFrame(
        {
            "client": rows["client"],
            "weight": 100 * rows["weight"],
            "share of samples": 100 * rows["sample_share"],
            "gain": change,
            "score": rows["score"],
            "loss": rows["avg_loss"],
            "samples": rows["num_samples"],
        }
    )
    note(f"Gain: weight minus share of samples, in points. Loss in {words.UNITS[rows['phase'].iloc[0]]}, as the client reported it.")
    table(shown, "last round", "Weight, share of samples, score and loss of every client in the last round", height=430)
