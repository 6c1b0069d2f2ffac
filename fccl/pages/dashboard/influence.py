"""The influence of each client on the global adapter, and why."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from fccl import phases
from fccl.display import words
from fccl.display.plain_text import one_line
from fccl.pages.dashboard.readers import Hub
from fccl.pages.dashboard.widgets import chart, heading, note, table
from fccl.registry import is_own
from fccl.view import charts, sentences
from fccl.view.values import RunView

LATER = "Appears when the first round is complete."
SOURCES = {
    "data_size": "samples",
    "loss_inverse": "1 / loss, as the clients report it",
    "data_loss_combined": "samples / loss, as the clients report it",
    "verified": "how much each update lowers the loss on the server's own examples",
    "validation_loss": "1 / loss of each update on the server's own examples",
    "leave_one_out": "what the loss on the server's own examples gains by each update",
    "shapley": "the exact Shapley value of each update, of the loss on the server's own examples",
}

VERIFIED = {
    "verified": "and moves the weights from the prior to where that loss is lowest",
    "tempered": "and moves weights and the length of the step as far as that can be told from noise",
    "leave_one_out": "without each client in turn, and moves the weights from the prior by what that changes",
    "validation_loss": "of each update on its own, and weighs it by that; there is no prior",
}
EXTRAS = {  # columns of the last round that few runs have
    "prior": "Prior: the weight before the server verified.",
    "counted": "Counted: how much the update counted in the end, since the aggregation does not take the weights as "
    "they are.",
    "standing": "Standing: the standard errors by which the phase's rounds so far speak against the client on average.",
}
LOW_PX = 170


def show(hub: Hub, view: RunView) -> None:
    """Weights, against samples, the scores behind them, and the last round in figures."""
    note(how(view))
    left, right = st.columns(2, gap="medium")
    with left:
        weights(hub, view)
        chart(
            hub,
            view,
            "Scores",
            lambda: charts.scores(view),
            f"Contribution score of every client by round. {sentences.scores_of(view.info)}",
            LATER,
        )
    with right:
        gains(hub, view)
    chart(
        hub,
        view,
        "Weights as a heat map",
        lambda: charts.weights_heat(view),
        "Heat map of FCCL weights by client and round",
        LATER,
    )
    verification(hub, view)
    averaging(hub, view)
    last_round(view)


def gains(hub: Hub, view: RunView) -> None:
    """Weight against share of samples by client, and the effective number of clients."""
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


def weights(hub: Hub, view: RunView, height: int | None = None) -> None:
    """The weights of every round, stacked."""
    says = "Stacked area of every client's FCCL weight by round"
    chart(
        hub,
        view,
        "FCCL weights",
        lambda: charts.weights_area(view),
        says,
        "The weights appear when the first round is complete.",
        height=height,
    )


def how(view: RunView) -> str:
    """The rules of this run, for the weights and for the aggregation where that is another than the mean."""
    rule = str(view.rounds["aggregation"].iloc[-1]) if len(view.rounds) else "fedavg"
    return weighing(view) + (f" Aggregation: {one_line(rule)} (AGGREGATION)." if rule != "fedavg" else "")


def weighing(view: RunView) -> str:
    """The rule of the weights in a sentence."""
    if view.info is None:
        return ""
    settings = view.info.settings
    match settings.get("contribution_mode"):
        case "uniform":
            return "Every client has the same weight (CONTRIBUTION_MODE=uniform)."
        case "fedavg":
            return "Weights in proportion to samples (CONTRIBUTION_MODE=fedavg)."
    source = settings.get("contribution_source", "")
    if source in sentences.NO_SOFTMAX:
        return f"Weights by {sentences.NO_SOFTMAX[source]} (CONTRIBUTION_SOURCE={source})."
    if is_own(source):
        return f"Weights by a class of your own (CONTRIBUTION_SOURCE={one_line(source)})."
    heat = settings.get(sentences.temperature_of(source), words.DASH)
    scores = f"{SOURCES.get(source, source)} (CONTRIBUTION_SOURCE={source})"
    if source in sentences.PRIOR_SOURCES:
        return (
            f"FCCL: a weight is the prior times the exponential of its score, at temperature {heat}. Scores: {scores}."
        )
    return f"FCCL: the weights are the softmax of the scores, at temperature {heat}. Scores: {scores}."


def verification(hub: Hub, view: RunView) -> None:
    """The effect of verification, its gain and its cost; nothing in a run without."""
    rounds = view.rounds.dropna(subset=["verify_seconds"])
    if rounds.empty:
        return
    last = rounds.iloc[-1].to_dict()
    heading("Verified by the server")
    note(" ".join([verified_how(view, int(last["verify_examples"])), *sentences.verified(last)]))
    drawn = {
        "From prior to verified weight": (
            charts.prior_and_weight,
            "Weight of every client before and after verification in the last round",
        ),
        "What verification won": (
            charts.verification_gain,
            "By how much the verified weights lower the loss on the server's examples, by round",
        ),
        "What verification took": (charts.verification_seconds, "Seconds that the server verified, by round"),
    }
    if view.shares["prior"].isna().all():
        drawn = {"What verification took": drawn["What verification took"]}
    for column, (name, (draw, says)) in zip(st.columns(len(drawn), gap="medium"), drawn.items(), strict=True):
        with column:
            chart(hub, view, name, lambda draw=draw: draw(view), says, "No loss was finite.", height=LOW_PX)  # type: ignore[misc]
    standing(hub, view)


def standing(hub: Hub, view: RunView) -> None:
    """The weighing rule's memory of clients; nothing in a run whose rule has none."""
    if view.shares["standing"].isna().all():
        return
    note(sentences.STANDING)
    says = "Standing of every client by round: the standard errors by which the phase's rounds so far speak against it"
    chart(hub, view, "Standing", lambda: charts.standing(view), says, LATER)


def verified_how(view: RunView, examples: int) -> str:
    """The server's use of its examples, by the source of the contributions."""
    settings = view.info.settings if view.info else {}
    did = VERIFIED.get(settings.get("contribution_source", ""), "and weighs the clients by it")
    split = "learn" if "learn_examples" in settings else "validation"  # as runs of version 0.1 did
    drawn = f"{words.plural(examples, 'example')} of its {split} split"
    return f"In every round the server measures the loss on {drawn} {did}."


def averaging(hub: Hub, view: RunView) -> None:
    """The loss by averaging LoRA's factors; nothing in a run that does not say."""
    if view.rounds["lora_error"].isna().all():
        return
    heading("Averaging LoRA adapters")
    note(
        "The mean of the factors A and B is not the mean of the products B·A, which are what the clients have "
        "learnt. The error is how far the "
        "new adapter's products are from the weighted mean of the clients', as a share of that mean's norm. "
        "LORA_AGGREGATION has ways without it."
    )
    says = "Error of averaging LoRA factors by round, as a share of the exact mean's norm"
    chart(hub, view, "Error of averaging LoRA factors", lambda: charts.lora_error(view), says, LATER, height=LOW_PX)


def last_round(view: RunView) -> None:
    """Weight, share and score of every client in the last round."""
    if view.shares.empty:
        return
    number = int(view.rounds["round"].iloc[-1])
    rows = view.shares[view.shares["round"] == number]
    heading(f"Round {number + 1} in figures")
    said = [name for name in EXTRAS if rows[name].notna().any()]
    change = 100 * (rows["weight"] - rows["sample_share"])
    shown = pd.DataFrame(
        {
            "client": rows["client"],
            "weight": 100 * rows["weight"],
            **{name: rows[name] if name == "standing" else 100 * rows[name] for name in said},
            "share of samples": 100 * rows["sample_share"],
            "gain": change,
            "score": rows["score"],
            "loss": rows["avg_loss"],
            "samples": rows["num_samples"],
        }
    )
    extra = " ".join(EXTRAS[name] for name in said)
    note(
        f"Gain: weight minus share of samples, in points. Loss in {phases.of(rows['phase'].iloc[0]).unit}, as the "
        f"client reported it. {extra}"
    )
    table(shown, "last round", "Weight, share of samples, score and loss of every client in the last round", height=430)
