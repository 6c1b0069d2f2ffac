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
from fccl.evaluation.validation import groups_by_topic, proportional_draw
from fccl.records.manifest import Manifest
from fccl.specs import PHASES, Phase, RoundPlan, named_seed

DRAWS = 50  # rounds of a phase whose draws are looked at
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
            f"From its learn split the server draws {few} in some rounds: "
            f"CONTRIBUTION_SOURCE={settings.contribution_source} needs {FEWEST_GROUPS} topics to tell clients apart, "
            "and weighs them by their samples there, as FedAvg does. CONTRIBUTION_SOURCE=verified goes by whatever is "
            "drawn."
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
    """The fewest topics in the draws of a phase's first rounds, in words, where that is below `FEWEST_GROUPS`; empty
    where it is nowhere.
    """
    plan = settings.round_plan()
    fewest = {
        phase: min(_topics_drawn(settings, topics[phase], number) for number in rounds)
        for phase in PHASES
        if topics[phase] and (rounds := _first_rounds(plan, phase))
    }
    return " and ".join(
        f"{phases.of(phase).noun}s of {plural(count, 'topic')}"
        for phase, count in fewest.items()
        if count < FEWEST_GROUPS
    )


def _first_rounds(plan: RoundPlan, phase: Phase) -> range:
    first = plan.first_round(phase)
    return range(first, first + min(DRAWS, plan.rounds_of(phase)))


def _topics_drawn(settings: Settings, topics: Sequence[str], number: int) -> int:
    """The topics of the examples that are drawn for a round; one without a topic is one of its own."""
    count = min(settings.verify_examples or len(topics), len(topics))
    places = proportional_draw(topics, count, named_seed(settings.seed, "verification", number))
    drawn = [topics[place] for place in places]
    return len(groups_by_topic(drawn, len(drawn)))


def _few(settings: Settings, manifest: Manifest, split: str) -> str:
    """The counts below `FEW`, in words, of the phases that have rounds; empty where there is none."""
    plan, counts = settings.round_plan(), manifest.counts[split]
    return " and ".join(
        plural(counts[phase], phases.of(phase).noun)
        for phase in PHASES
        if plan.rounds_of(phase) and counts[phase] < FEW
    )
