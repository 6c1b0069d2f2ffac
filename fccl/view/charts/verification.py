"""Charts of verification: its gain and its cost."""

from __future__ import annotations

import altair as alt

from fccl.view.charts.lines import over_both_phases
from fccl.view.charts.parts import Picture, tip, unchecked
from fccl.view.values import RunView


@unchecked
def verification_gain(view: RunView) -> Picture | None:
    """The gain of verification: by how much the weights lower the mean's loss on the server's examples, as a share of
    its loss with the prior's weights.

    A share, since the losses of the two phases have units of their own. A round whose loss with the prior is not finite
    has no point.
    """
    rounds = view.rounds.dropna(subset=["loss_prior", "loss_weights"])
    rounds = rounds[rounds["loss_prior"] > 0]
    if rounds.empty:
        return None
    rounds = rounds.assign(gain=1 - rounds["loss_weights"] / rounds["loss_prior"])
    top = max(0.01, 1.12 * float(rounds["gain"].max()))
    scale = alt.Scale(domain=[min(0.0, 1.12 * float(rounds["gain"].min())), top], nice=False)
    y = alt.Y("gain:Q", title="loss lowered by", axis=alt.Axis(format=".3~%"), scale=scale)
    tips = (
        tip("gain", "lowered by", ".2~%"),
        tip("loss_prior", "loss with the prior", ".4f"),
        tip("loss_weights", "with the weights", ".4f"),
    )
    return over_both_phases(rounds, "gain", y, "What verification won", *tips, also=["loss_prior", "loss_weights"])


@unchecked
def verification_seconds(view: RunView) -> Picture | None:
    """The duration of verification in every round, whose own length the tooltip gives."""
    rounds = view.rounds.dropna(subset=["verify_seconds"])
    if rounds.empty:
        return None
    y = alt.Y("verify_seconds:Q", title="seconds a round", axis=alt.Axis(format="~r"), scale=alt.Scale(domainMin=0))
    tips = (tip("verify_seconds", "verifying, s", ".3~r"), tip("seconds", "whole round, s", ".3~r"))
    return over_both_phases(rounds, "verify_seconds", y, "What verification took", *tips, also=["seconds"])
