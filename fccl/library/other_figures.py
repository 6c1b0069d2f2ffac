"""Figures of a plan that are neither time nor space: one line for each that the settings ask for."""

from __future__ import annotations

from collections.abc import Mapping

from fccl.config import Settings
from fccl.display.words import plural
from fccl.library.privacy import privacy_spec
from fccl.privacy.accountant import Steps, accounting_of, epsilon_of_steps
from fccl.privacy.sampling import ExampleSampling
from fccl.privacy.spec import PrivacySpec
from fccl.records.forecast import OtherFigure
from fccl.records.manifest import Manifest
from fccl.specs import PHASES, Phase


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
    if spec.unit == "example":
        return (_budget_of_examples(settings, spec, manifest.samples_by_client()),)
    plan = settings.round_plan()
    accounting = accounting_of(spec, plan.num_clients, plan.clients_per_round)
    rounds = accounting.releases_within(spec.epsilon, plan.total_rounds)
    stops = "" if rounds == plan.total_rounds else f"; the run stops before round {rounds + 1}"
    note = f"δ = {spec.delta:g}, budget {spec.epsilon:g}, {rounds} of {plural(plan.total_rounds, 'round')}{stops}"
    return (OtherFigure(name="ε of a client", predicted=f"{accounting.epsilon(rounds):.2f}", note=note),)


def _budget_of_examples(
    settings: Settings, spec: PrivacySpec, counts: Mapping[Phase, Mapping[int, int]]
) -> OtherFigure:
    """ε of an example of the client that has most of it, after all rounds."""
    plan = settings.round_plan()
    steps: dict[int, list[Steps]] = {}
    for phase in PHASES:
        train, rounds = settings.train_spec(phase), plan.rounds_of(phase)
        for client, examples in counts[phase].items():
            if examples:
                drawn = ExampleSampling.of(train, examples)
                one = Steps(noise=spec.noise, rate=drawn.rate, count=rounds * drawn.steps)
                steps.setdefault(client, []).append(one)
    most = max((epsilon_of_steps(each, spec.delta) for each in steps.values()), default=0.0)
    stops = "; the run stops before" if most > spec.epsilon else ""
    note = f"δ = {spec.delta:g}, budget {spec.epsilon:g}, of a client that takes part in all rounds{stops}"
    return OtherFigure(name="ε of an example", predicted=f"{most:.2f}", note=note)


_FIGURES = (_examples, _budget)
