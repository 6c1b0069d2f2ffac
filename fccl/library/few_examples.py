"""Warnings of a run whose settings leave a decision to a split of the server that has too few examples for it."""

from __future__ import annotations

from collections.abc import Iterator

from fccl import phases
from fccl.config import Settings
from fccl.contribution import rules as contribution
from fccl.display.words import plural
from fccl.records.manifest import Manifest
from fccl.specs import PHASES

FEW = 16  # below, the standard error of a mean is more than a quarter of one example's spread


def cautions(settings: Settings, manifest: Manifest) -> Iterator[str]:
    """A line for weights made from few examples of the learn split, and for a phase that few of the validation split
    may end.
    """
    if _weighs_by_learn(settings) and (few := _few(settings, manifest, "learn")):
        yield (
            f"The server's learn split has only {few}: the weights of CONTRIBUTION_SOURCE="
            f"{settings.contribution_source} rest on them, and are largely chance. LEARN_EXAMPLES takes more, up to a "
            "twentieth of the data."
        )
    if settings.patience and (few := _few(settings, manifest, "validation")):
        yield (
            f"The server's validation split has only {few}: PATIENCE={settings.patience} may end a phase by chance. "
            "VALIDATION_EXAMPLES takes more, up to a twentieth of the data."
        )


def _weighs_by_learn(settings: Settings) -> bool:
    return contribution.takes_loss(settings.contribution_mode, settings.contribution_source, settings.model_dump())


def _few(settings: Settings, manifest: Manifest, split: str) -> str:
    """The counts below `FEW`, in words, of the phases that have rounds; empty where there is none."""
    plan, counts = settings.round_plan(), manifest.counts[split]
    return " and ".join(
        plural(counts[phase], phases.of(phase).noun)
        for phase in PHASES
        if plan.rounds_of(phase) and counts[phase] < FEW
    )
