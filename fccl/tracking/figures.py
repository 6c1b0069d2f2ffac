"""A run's records as named numbers, the same for every tracker.

Names have a group before the slash. Losses carry their phase, since those of SFT (nats per response token) and of VA
(nats per pair) do not compare. The step is the round counted from 1; step 0 is the base model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from fccl.records.evaluation import Estimate, EvaluationReport
from fccl.records.run import ClientMetrics, RoundRecord, RunInfo, Validation
from fccl.specs import Value

Figures = dict[str, float]
MARK = "round/seconds"  # every round has it
_NOT_FIGURES = frozenset({"round", "time"})


def step_of(record: RoundRecord) -> int:
    """The step of a round."""
    return record.round + 1


def base_figures(base: Validation | None) -> Figures:
    """The base model, step 0."""
    return {"sft/validation_loss": base.loss} if base else {}


def round_figures(record: RoundRecord, metrics: Sequence[ClientMetrics]) -> Figures:
    """One round: the federation's figures, and three or more of each client."""
    figures = _numbers("round", record)
    figures |= {"round/clients": len(record.clients), "round/excluded": len(record.excluded)}
    if record.seconds:
        figures["round/tokens_per_second"] = sum(each.tokens for each in metrics) / record.seconds
    if record.validation:
        figures[f"{record.phase}/validation_loss"] = record.validation.loss
        if record.validation.preference_accuracy is not None:
            figures[f"{record.phase}/preference_accuracy"] = record.validation.preference_accuracy
    if record.learning and record.learning.before:
        figures[f"{record.phase}/aggregate_loss"] = record.learning.before.loss
    if record.verification:
        figures |= _numbers(f"verification_{record.phase}", record.verification)
    for client, weight, score in zip(record.clients, record.weights, record.scores, strict=True):
        figures |= {f"weight/client_{client}": weight, f"score/client_{client}": score}
    if record.privacy:
        figures |= {"privacy/epsilon": record.privacy.epsilon, "privacy/clip": record.privacy.clip}
    else:
        reported = zip(record.clients, record.contributions, strict=True)
        figures |= {f"loss_{record.phase}/client_{client}": said.avg_loss for client, said in reported}
    for each in metrics:
        figures |= {
            f"tokens_per_second/client_{each.client_id}": each.tokens_per_second,
            f"update_norm/client_{each.client_id}": each.update_norm,
        }
    return figures


def evaluation_figures(report: EvaluationReport) -> Figures:
    """Every model's measures on the test split, with their 95 % intervals."""
    figures: Figures = {}
    for model in report.models:
        measures: Mapping[str, Estimate | None] = {
            "perplexity": model.perplexity,
            "preference_accuracy": model.preference.accuracy,
            "exact_answers": model.exact,
        }
        for name, estimate in measures.items():
            if estimate:
                key = f"evaluation_{re.sub(r'[^A-Za-z0-9_.-]', '_', model.name)}/{name}"
                figures |= {key: estimate.value, f"{key}_low": estimate.low, f"{key}_high": estimate.high}
    return figures


def hyper_parameters(info: RunInfo) -> dict[str, str | float]:
    """The run's settings, numbers as numbers."""
    return {name: _value(text) for name, text in info.settings.items()}


def _numbers(group: str, value: Value) -> Figures:
    """The fields of a record that are one number each."""
    found = {name: number for name, number in value if isinstance(number, int | float) and name not in _NOT_FIGURES}
    return {f"{group}/{name}": float(number) for name, number in found.items()}


def _value(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text
