"""Warnings of a run whose settings leave a decision to a split of the server that has too few examples for it, or too
few topics.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fccl import phases
from fccl.config import Settings
from fccl.contribution import rules as contribution
from fccl.contribution.noise import FEWEST_GROUPS
from fccl.display.words import plural
from fccl.records.manifest import Manifest
from fccl.specs import PHASES, Phase

FEW = 16  # below, the standard error of a mean is more than a quarter of one example's spread


def cautions(settings: Settings, manifest: Manifest, topics: Mapping[Phase, Sequence[str]]) -> Iterator[str]:
    """A line for weights that few examples of the learn split make, and for weights that its few topics leave as they
    are. One for a phase that few examples of the validation split may end.

    `topics` has those of the learn split's examples.
    """
    if _weighs_by_learn(settings) and (few := _few(settings, manifest, "learn")):
        yield (
            f"The server's learn split has only {few}: the weights of CONTRIBUTION_SOURCE="
            f"{settings.contribution_source} rest on them, and are largely chance. LEARN_EXAMPLES takes more, up to a "
            "twentieth of the data."
        )
    if _weighs_by_topic(settings) and (few := _few_topics(settings, topics)):
        yield (
            f"In the server's learn split {few}: CONTRIBUTION_SOURCE={settings.contribution_source} needs "
            f"{FEWEST_GROUPS} to tell clients apart, and weighs them by their samples there, as FedAvg does. "
            "CONTRIBUTION_SOURCE=verified goes by whatever there is."
        )
    if settings.patience and (few := _few(settings, manifest, "validation")):
        yield (
            f"The server's validation split has only {few}: PATIENCE={settings.patience} may end a phase by chance. "
            "VALIDATION_EXAMPLES takes more, up to a twentieth of the data."
        )


def _weighs_by_learn(settings: Settings) -> bool:
    return contribution.takes_loss(settings.contribution_mode, settings.contribution_source, settings.model_dump())


def _weighs_by_topic(settings: Settings) -> bool:
    return contribution.by_topic(settings.contribution_mode, settings.contribution_source, settings.model_dump())


def _few_topics(settings: Settings, topics: Mapping[Phase, Sequence[str]]) -> str:
    """The numbers of topics below `FEWEST_GROUPS`, in words, of the phases that have rounds; empty where there is
    none. An example without a topic is one of its own, and of no more examples than are drawn there are more topics.
    """
    plan, most = settings.round_plan(), settings.verify_examples or len(topics["sft"]) + len(topics["va"])
    found = {phase: min(most, len(set(filter(None, names))) + names.count("")) for phase, names in topics.items()}
    return " and ".join(
        f"the {phases.of(phase).noun}s are of {plural(found[phase], 'topic')}"
        for phase in PHASES
        if plan.rounds_of(phase) and found[phase] < FEWEST_GROUPS
    )


def _few(settings: Settings, manifest: Manifest, split: str) -> str:
    """The counts below `FEW`, in words, of the phases that have rounds; empty where there is none."""
    plan, counts = settings.round_plan(), manifest.counts[split]
    return " and ".join(
        plural(counts[phase], phases.of(phase).noun)
        for phase in PHASES
        if plan.rounds_of(phase) and counts[phase] < FEW
    )
