"""Tables of the privacy that a run has spent: by round, and by client where clients differ. Sentences on it, and on
rounds whose updates are known by their sum alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fccl import phases
from fccl.display.tables import Cell, Table
from fccl.display.words import named_clients, plural
from fccl.privacy.spec import Unit
from fccl.records.privacy import ClientSpent, RoundPrivacy
from fccl.records.secure import SecureRound
from fccl.specs import Phase
from fccl.view.values import RunView

MOST_CLIENTS = 400
_UNITS: Mapping[Unit, tuple[str, str, str]] = {
    "client": ("a client's", "one whole client", "Noise is added"),
    "example": ("an example's", "one instruction and one pair of a client", "Noise is added to every step (DP-SGD)"),
}
Spending = tuple[int, Phase, RoundPrivacy]  # the round, from 0


def privacy_line(said: RoundPrivacy) -> str:
    """The guarantee in a sentence."""
    drawn = f", {said.sampling} sampling in secret" if said.amplified else ""
    whose, unit, noise = _UNITS[said.unit]
    return (
        f"After {plural(said.releases, 'noised release')} {whose} ε is at most {said.epsilon:.3f} at "
        f"δ = {said.delta:g}, of a budget of {said.budget:g}. {noise} at the {said.where}, {said.noise:g} times "
        f"the clip. Neighbours differ in {unit} ({said.relation}); counted by {said.accountant}{drawn}."
    )


def secure_line(rounds: Sequence[SecureRound]) -> str:
    """A sentence on the secure sums of a run's rounds; empty where there are none."""
    if not rounds:
        return ""
    last, dropped = rounds[-1], sum(len(each.dropped) for each in rounds)
    lost = (
        f" {plural(dropped, 'client')} dropped out after giving shares, and their masks were taken off."
        if dropped
        else ""
    )
    counted = "all clients count alike" if last.most == 1 else f"by samples, at most {last.most:,} a client"
    return (
        f"Secure aggregation: the server knows the sum of a round's updates ({counted}) and no single one. In the last "
        f"round it is of {len(last.clients)} of {last.cohort} clients, of which {last.threshold} were needed.{lost}"
        f"{_false_shares(rounds)}"
    )


def _false_shares(rounds: Sequence[SecureRound]) -> str:
    """A sentence on the clients that gave false shares in any round; empty where none did."""
    found = sorted({client for each in rounds for client in each.false_shares})
    if not found:
        return ""
    return f" False shares were given by {named_clients(found)}, and left out."


def rounds_table(view: RunView) -> Table | None:
    """ε after every round; None of a run without differential privacy."""
    if not view.privacy:
        return None
    rows, before = [], 0.0
    for spending in view.privacy:
        rows.append(_round_row(spending, before))
        before = spending[2].epsilon
    head = ("round", "phase", "clip", "ε", "spent here", "left")
    return Table("Privacy spent by round", head, tuple(rows), privacy_line(view.privacy[-1][2]), words=frozenset({1}))


def _round_row(spending: Spending, before: float) -> tuple[Cell | str, ...]:
    number, phase, said = spending
    return (
        str(number + 1),
        phases.title(phase),
        f"{said.clip:.4g}",
        f"{said.epsilon:.3f}",
        f"{said.epsilon - before:.3f}",
        f"{max(0.0, said.budget - said.epsilon):.3f}",
    )


def clients_table(view: RunView) -> Table | None:
    """ε of each client; None where all have spent the same."""
    found = view.privacy[-1][2].clients if view.privacy else ()
    if not found:
        return None
    budget = view.privacy[-1][2].budget
    most = sorted(found, key=lambda each: (-each.epsilon, each.client_id))[:MOST_CLIENTS]
    note = "Updates that a client was asked for and did not decline: one that came too late has left it too."
    rows = tuple(_client_row(each, budget) for each in most)
    return Table("Privacy spent by client", ("client", "updates", "ε", "left"), rows, note)


def _client_row(each: ClientSpent, budget: float) -> tuple[Cell | str, ...]:
    left = f"{max(0.0, budget - each.epsilon):.3f}"
    return str(each.client_id), f"{each.releases:,}", f"{each.epsilon:.3f}", left
