"""The facts and words of each phase, once: name, title, unit of its loss, noun of its examples.

    >>> of("va").title
    'FedVA (DPO)'

Behaviour is not here. Each behaviour has one table by phase beside its functions (`fccl.model.objectives`,
`fccl.evaluation.validation`), so that another loss is one more row there and one more value here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fccl.specs import Phase


@dataclass(frozen=True)
class PhaseFacts:
    """One phase. Its first loss is that of `start`: known beforehand (`start_loss`), or None when it is measured."""

    name: str
    title: str  # with its method
    words: str
    noun: str  # one of its examples
    unit: str  # of its loss
    short_unit: str
    start: str
    takes_reference: bool = False  # its loss is relative to the last adapter of the phase before it
    start_loss: float | None = None


_FACTS: Mapping[str, PhaseFacts] = MappingProxyType(
    {
        "sft": PhaseFacts(
            name="FedIT",
            title="FedIT (SFT)",
            words="instruction phase",
            noun="instruction",
            unit="nats per response token",
            short_unit="nats/token",
            start="base model",
        ),
        "va": PhaseFacts(
            name="FedVA",
            title="FedVA (DPO)",
            words="preference phase",
            noun="preference pair",
            unit="nats per pair",
            short_unit="nats/pair",
            start="reference policy",
            takes_reference=True,
            start_loss=math.log(2),  # of DPO where policy and reference agree: -log sigmoid(0)
        ),
    }
)


def of(phase: Phase | str) -> PhaseFacts:
    """The facts of a phase, by its short name in files and settings (`sft`, `va`)."""
    return _FACTS[phase]


def title(phase: Phase | str) -> str:
    """The phase's name with its method, for a function that takes a function: `frame["phase"].map(title)`."""
    return _FACTS[phase].title
