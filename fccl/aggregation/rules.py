"""Every rule by the name that `AGGREGATION` has for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fccl.aggregation.coordinates import Median, TrimmedMean
from fccl.aggregation.fedavg import FedAvg
from fccl.aggregation.geometric_median import GeometricMedian
from fccl.aggregation.krum import Krum, MultiKrum
from fccl.aggregation.lora_mean import LoraMean
from fccl.aggregation.norm_clipping import NormClipping
from fccl.aggregation.protocol import Aggregation
from fccl.aggregation.server_optimisers import FedAdagrad, FedAdam, FedAvgM, FedYogi
from fccl.errors import SettingsError

Rule = (
    FedAvg
    | FedAvgM
    | FedAdagrad
    | FedYogi
    | FedAdam
    | Median
    | TrimmedMean
    | Krum
    | MultiKrum
    | GeometricMedian
    | NormClipping
)
RULES: Mapping[str, type[Rule]] = {
    "fedavg": FedAvg,
    "fedprox": FedAvg,
    "scaffold": FedAvg,
    "fedavgm": FedAvgM,
    "fedadagrad": FedAdagrad,
    "fedyogi": FedYogi,
    "fedadam": FedAdam,
    "median": Median,
    "trimmed_mean": TrimmedMean,
    "krum": Krum,
    "multi_krum": MultiKrum,
    "geometric_median": GeometricMedian,
    "norm_clipping": NormClipping,
}
LORA_AGGREGATIONS = ("factors", "exact", "svd", "freeze_a")


def aggregation(name: str, lora_aggregation: str = "factors", lora_r: int = 1, **settings: Any) -> Aggregation:
    """The rule of this name, with those of the settings that it has; one that is None leaves the rule's own default.

    `svd` and `exact` put their mean in the place of the rule's. Raises `SettingsError` when the rule has no mean that
    could be replaced. Names and values have been checked before: others are a `KeyError` and pydantic's
    `ValidationError`.
    """
    kind = RULES[name]
    own = {field: value for field, value in settings.items() if field in kind.model_fields and value is not None}
    rule = kind.model_validate({**own, "name": name})
    if lora_aggregation not in ("svd", "exact"):
        return rule
    if not isinstance(rule, FedAvg | Krum | MultiKrum | GeometricMedian) or name == "scaffold":
        raise SettingsError(
            f"LORA_AGGREGATION={lora_aggregation} does not go with AGGREGATION={name}, which computes with the "
            "factors themselves",
            hint="use fedavg, fedprox, krum, multi_krum or geometric_median, or LORA_AGGREGATION=factors or freeze_a",
        )
    return LoraMean.model_validate({"name": lora_aggregation, "lora_r": lora_r, "weighing": rule})
