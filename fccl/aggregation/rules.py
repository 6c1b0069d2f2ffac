"""The aggregation rules: every `AGGREGATION` by its name, and how one becomes an `Aggregation`.

Loads no class before it is asked for one, so that `--help` can say who reads a setting without waiting for torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fccl.errors import SettingsError
from fccl.registry import Registered, built, is_own, load, registered_own, same

if TYPE_CHECKING:
    from fccl.aggregation.protocol import Aggregation

METHODS = ("initial", "require", "aggregate")  # of the protocol
# What clients of the exact means may be told: fewer directions than the federation's.
LORA_READS: Mapping[str, tuple[str, ...]] = {
    "factors": (),
    "svd": ("client_lora_r",),
    "exact": ("client_lora_r",),
    "nearly": (),
    "freeze_a": (),
    "fed_sb": (),
}
MEANS_OF_PRODUCTS = ("svd", "exact", "nearly")  # values of `LORA_AGGREGATION` that replace a rule's mean
_OPTIMISER = ("server_lr", "server_momentum")
_ADAPTIVE = (*_OPTIMISER, "server_tau")
_MEANS = ("fedavg", "fedprox", "krum", "multi_krum", "geometric_median")  # whose mean another may replace
# Values that leave the choice to the rule.
_UNSET: Mapping[str, Callable[[Any], bool]] = {
    "server_lr": lambda value: value == 0,
    "server_momentum": lambda value: value < 0,
}


def _rule(name: str, place: str, *reads: str, also: tuple[str, ...] = ()) -> Registered:
    return Registered(f"fccl.aggregation.{place}", same(*reads), {"name": name}, also)


RULES: Mapping[str, Registered] = {
    "fedavg": _rule("fedavg", "fedavg:FedAvg"),
    "fedprox": _rule("fedprox", "fedavg:FedAvg", also=("prox_mu",)),  # which its clients read
    "scaffold": _rule("scaffold", "fedavg:FedAvg"),
    "fedavgm": _rule("fedavgm", "server_optimisers:FedAvgM", *_OPTIMISER),
    "fedadagrad": _rule("fedadagrad", "server_optimisers:FedAdagrad", *_ADAPTIVE),
    "fedyogi": _rule("fedyogi", "server_optimisers:FedYogi", *_ADAPTIVE, "server_beta2"),
    "fedadam": _rule("fedadam", "server_optimisers:FedAdam", *_ADAPTIVE, "server_beta2"),
    "median": _rule("median", "coordinates:Median"),
    "trimmed_mean": _rule("trimmed_mean", "coordinates:TrimmedMean", "max_bad_clients"),
    "krum": _rule("krum", "krum:Krum", "max_bad_clients"),
    "multi_krum": _rule("multi_krum", "krum:MultiKrum", "max_bad_clients", "krum_keep"),
    "geometric_median": _rule("geometric_median", "geometric_median:GeometricMedian"),
    "fedexp": _rule("fedexp", "fedexp:FedExp", "fedexp_epsilon"),
    "norm_clipping": _rule("norm_clipping", "norm_clipping:NormClipping", "clip_norm"),
}
UNWEIGHED = frozenset({"median", "trimmed_mean", "krum", "multi_krum"})  # treat all updates alike


def registered(name: str, known: Mapping[str, object]) -> Registered:
    """The rule of this name; `known` has all settings. Raises `SettingsError` for a class that is no such rule."""
    return registered_own(name, known, METHODS) if is_own(name) else RULES[name]


def uses_weights(name: str) -> bool:
    """Whether the contribution weights change anything under this rule. Loads a class only if it is someone's own."""
    return bool(getattr(load(name), "uses_weights", True)) if is_own(name) else name not in UNWEIGHED


def reads(name: str, lora_aggregation: str, known: Mapping[str, object]) -> frozenset[str]:
    """The settings that have an effect under this rule."""
    return registered(name, known).settings | frozenset(LORA_READS[lora_aggregation])


def aggregation(name: str, lora_aggregation: str = "factors", lora_r: int = 1, **settings: Any) -> Aggregation:
    """The rule of this name, of those of the settings that it reads; one that is missing keeps the rule's own default.

    `svd`, `exact` and `nearly` put their mean in the place of the rule's; under `fed_sb` it is of the middle matrices
    alone. Raises `SettingsError` when the rule has no
    mean that could be replaced, or is someone's own class that cannot be had. Names and values of ours have been
    checked before: others are a `KeyError` and pydantic's `ValidationError`.

    >>> aggregation("trimmed_mean", max_bad_clients=2).max_bad_clients
    2
    """
    if lora_aggregation in MEANS_OF_PRODUCTS and name not in _MEANS:
        raise SettingsError(
            f"LORA_AGGREGATION={lora_aggregation} does not go with AGGREGATION={name}, which computes with the "
            "factors themselves",
            hint="use fedavg, fedprox, krum, multi_krum or geometric_median, or LORA_AGGREGATION=factors or freeze_a",
        )
    if is_own(name):
        rule = _own(name, {"lora_r": lora_r, "lora_aggregation": lora_aggregation, **settings})
    else:
        chosen = {key: value for key, value in settings.items() if value is not None and not _unset(key, value)}
        rule = RULES[name].build(chosen)
    if lora_aggregation == "fed_sb":
        from fccl.aggregation.of_middle import OfMiddle

        return OfMiddle(rule)
    if lora_aggregation not in MEANS_OF_PRODUCTS:
        return rule
    if lora_aggregation == "nearly":
        from fccl.aggregation.lora_nearly import LoraNearly

        return LoraNearly.model_validate({"weighing": rule})
    from fccl.aggregation.lora_mean import LoraMean

    return LoraMean.model_validate({"name": lora_aggregation, "lora_r": lora_r, "weighing": rule})


def _own(name: str, settings: Mapping[str, object]) -> Aggregation:
    from fccl.aggregation.own import OwnAggregation

    return OwnAggregation(name, built(registered(name, settings), settings))


def _unset(name: str, value: object) -> bool:
    return name in _UNSET and _UNSET[name](value)
