"""The facts and words of each phase, once: name, title, unit of its loss, noun of its examples.

    >>> of("va").title
    'FedVA (DPO)'

Behaviour is not here. Each behaviour has one table by phase beside its functions (`fccl.model.objectives`,
`fccl.evaluation.validation`), so that another loss is one more row there and one more value here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fccl.specs import Phase, PreferenceLoss, PreferenceSpec


@dataclass(frozen=True)
class PhaseFacts:
    """One phase. Its first loss is that of `start`."""

    name: str
    title: str  # with its method
    words: str
    noun: str  # one of its examples
    unit: str  # of its loss
    short_unit: str
    start: str
    has_pairs: bool = False  # its loss is a preference loss, relative to the last adapter of the phase before it or not


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
            has_pairs=True,
        ),
    }
)


def of(phase: Phase | str) -> PhaseFacts:
    """The facts of a phase, by its short name in files and settings (`sft`, `va`)."""
    return _FACTS[phase]


def start_loss(phase: Phase | str, preference: PreferenceSpec) -> float | None:
    """The loss that a phase starts from, where it is known beforehand: of a policy that is its reference policy.

    >>> start_loss("va", PreferenceSpec(loss="hinge")), start_loss("sft", PreferenceSpec())
    (1.0, None)
    """
    return _AT_REFERENCE[preference.loss](preference) if takes_reference(phase, preference) else None


_LOG_2 = math.log(2)
# Each preference loss where policy and reference agree: `fccl.model.preference_losses` at gains of zero.
_AT_REFERENCE: Mapping[PreferenceLoss, Callable[[PreferenceSpec], float]] = MappingProxyType(
    {
        **dict.fromkeys(("sigmoid", "sigmoid_norm", "robust"), lambda _: _LOG_2),
        **dict.fromkeys(("hinge", "apo_zero", "apo_down"), lambda _: 1.0),
        **dict.fromkeys(("nca_pair", "bco_pair"), lambda _: 2 * _LOG_2),
        "ipo": lambda spec: 1 / (2 * spec.beta) ** 2,
        "sppo_hard": lambda spec: 2 / (2 * spec.beta) ** 2,
        "exo_pair": lambda spec: -_LOG_2 - math.log(spec.label_smoothing * (1 - spec.label_smoothing)) / 2,
        "discopop": lambda _: (1 + _LOG_2) / 2,
    }
)


def takes_reference(phase: Phase | str, preference: PreferenceSpec) -> bool:
    """Whether the phase's loss is relative to the last adapter of the phase before it.

    >>> takes_reference("va", PreferenceSpec()), takes_reference("va", PreferenceSpec(loss="simpo"))
    (True, False)
    """
    return of(phase).has_pairs and preference.takes_reference


def may_be_negative(phase: Phase | str, preference: PreferenceSpec) -> bool:
    """Whether an honest client may report a loss below 0 in this phase."""
    return of(phase).has_pairs and preference.may_be_negative


def title(phase: Phase | str) -> str:
    """The phase's name with its method, for a function that takes a function: `frame["phase"].map(title)`."""
    return _FACTS[phase].title
