"""Figures of a plan that are neither time nor space: one line for each that the settings ask for."""

from __future__ import annotations

from fccl.config import Settings
from fccl.library.privacy import privacy_spec
from fccl.privacy.accountant import accounting_of
from fccl.records.forecast import OtherFigure
from fccl.records.manifest import Manifest
from fccl.specs import PHASES
from fccl.words import plural


def other_figures(settings: Settings, manifest: Manifest) -> tuple[OtherFigure, ...]:
    """The figures that these settings ask for; `manifest` says how many examples each client has."""
    return tuple(figure for make in _FIGURES for figure in make(settings, manifest))


def _examples(settings: Settings, manifest: Manifest) -> tuple[OtherFigure, ...]:
    """The examples of the smallest and of the largest client."""
    counts = manifest.samples_by_client()
    samples = [sum(each) for each in zip(*(counts[phase].values() for phase in PHASES), strict=True)]
    if not samples:
        return ()
    return (OtherFigure(name="examples of a client", predicted=f"{min(samples):,} to {max(samples):,}"),)


def _budget(settings: Settings, manifest: Manifest) -> tuple[OtherFigure, ...]:
    """ε of a client after all the rounds that its budget allows."""
    if (spec := privacy_spec(settings)) is None:
        return ()
    plan = settings.round_plan()
    accounting = accounting_of(spec, plan.num_clients, plan.clients_per_round)
    rounds = accounting.releases_within(spec.epsilon, plan.total_rounds)
    stops = "" if rounds == plan.total_rounds else f"; the run stops before round {rounds + 1}"
    note = f"δ = {spec.delta:g}, budget {spec.epsilon:g}, {rounds} of {plural(plan.total_rounds, 'round')}{stops}"
    return (OtherFigure(name="ε of a client", predicted=f"{accounting.epsilon(rounds):.2f}", note=note),)


_FIGURES = (_examples, _budget)
