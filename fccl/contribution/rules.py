"""The weighing rules: every `CONTRIBUTION_SOURCE` and `CONTRIBUTION_MODE` by its name, and how one becomes a `Weigher`.

Loads no class before it is asked for one, so that `--help` can say who reads a setting without waiting for torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from fccl.contribution.own import OwnWeigher
from fccl.registry import Registered, built, is_own, registered_own

if TYPE_CHECKING:
    from fccl.contribution.protocol import LearnLoss, Weigher

_REPORTED = "fccl.contribution.reported:ContributionRule"
_SOFTMAX = {"contribution_temperature": "temperature", "contribution_normalize": "normalize"}
_TILTED = {"verify_temperature": "temperature", "verify_prior": "prior"}
_EXAMPLES = ("verify_examples",)  # of the loss, which is not the rule's to make
METHODS = ("weigh",)  # of the protocol


def _fedlaw(shrinks: bool) -> Registered:
    reads = {"verify_steps": "steps", "fedlaw_lr": "rate"}
    return Registered("fccl.contribution.fedlaw:FedLaw", reads, {"shrinks": shrinks}, _EXAMPLES, takes_loss=True)


MODES: Mapping[str, Registered] = {name: Registered(_REPORTED, fixed={"mode": name}) for name in ("uniform", "fedavg")}
RULES: Mapping[str, Registered] = {
    **{
        name: Registered(_REPORTED, _SOFTMAX, {"source": name})
        for name in ("loss_inverse", "data_size", "data_loss_combined")
    },
    "verified": Registered(
        "fccl.contribution.verified:Verified", {"verify_steps": "steps", **_TILTED}, also=_EXAMPLES, takes_loss=True
    ),
    "tempered": Registered(
        "fccl.contribution.tempered:Tempered",
        {"verify_steps": "steps", "tempered_ratio": "ratio"},
        also=_EXAMPLES,
        takes_loss=True,
        by_topic=True,
    ),
    "validation_loss": Registered(
        "fccl.contribution.validation_loss:ValidationLoss", _SOFTMAX, also=_EXAMPLES, takes_loss=True
    ),
    "leave_one_out": Registered(
        "fccl.contribution.leave_one_out:LeaveOneOut", _TILTED, also=_EXAMPLES, takes_loss=True
    ),
    "shapley": Registered("fccl.contribution.shapley:Shapley", _TILTED, also=_EXAMPLES, takes_loss=True),
    "fltrust": Registered("fccl.contribution.fltrust:FLTrust", {"fltrust_lr": "step"}, takes_loss=True),
    "fedlaw": _fedlaw(shrinks=False),
    "fedlaw_gamma": _fedlaw(shrinks=True),
    "greedy_soup": Registered("fccl.contribution.greedy_soup:GreedySoup", also=_EXAMPLES, takes_loss=True),
    "lorahub": Registered(
        "fccl.contribution.lorahub:LoraHub",
        {"lorahub_steps": "steps", "lorahub_penalty": "penalty"},
        also=_EXAMPLES,
        takes_loss=True,
    ),
    "line_search": Registered("fccl.contribution.line_search:LineSearch", also=_EXAMPLES, takes_loss=True),
    "fedawa": Registered("fccl.contribution.fedawa:FedAwa", {"fedawa_lr": "rate"}),
}


def registered(source: str, known: Mapping[str, object]) -> Registered:
    """The rule of this name; `known` has all settings. Raises `SettingsError` for a class that is no weighing rule."""
    if not is_own(source):
        return RULES[source]
    own = registered_own(source, known, METHODS)
    return Registered(own.path, own.reads, also=_EXAMPLES if own.takes_loss else (), takes_loss=own.takes_loss)


def weigher(mode: str, source: str, settings: Mapping[str, object], loss: Callable[[], LearnLoss]) -> Weigher:
    """The weighing rule of these names, of those of the settings that it reads; `loss` makes the loss for it.

    Raises `SettingsError` when it is someone's own class and cannot be had.

    >>> weigher("cognitive", "data_size", {"contribution_temperature": 2.0}, loss=None).temperature
    2.0
    """
    chosen = MODES[mode] if mode in MODES else registered(source, settings)
    given = {"loss": loss()} if chosen.takes_loss else {}
    if mode in MODES or not is_own(source):
        rule: Weigher = chosen.build(settings, **given)
        return rule
    return OwnWeigher(source, built(chosen, settings, **given))


def takes_loss(mode: str, source: str, known: Mapping[str, object]) -> bool:
    """Whether the weights are made from the loss on the server's learn split."""
    return mode not in MODES and registered(source, known).takes_loss


def by_topic(mode: str, source: str, known: Mapping[str, object]) -> bool:
    """Whether the weights need several topics among these examples to move."""
    return mode not in MODES and registered(source, known).by_topic


def reads(mode: str, source: str, known: Mapping[str, object]) -> frozenset[str]:
    """The settings of this group that have an effect, `contribution_mode` itself not counted."""
    return frozenset() if mode in MODES else registered(source, known).settings | {"contribution_source"}
