"""The settings of the groups contribution and aggregation: what chooses a rule, and what some of the rules read.

Which rule reads which of them stands with the rules: `fccl/contribution/rules.py`, `fccl/aggregation/rules.py`.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import ValidationInfo, field_validator
from pydantic_settings import BaseSettings

from fccl.config.fields import allowed, choices_of, knob
from fccl.registry import is_own

SOURCES = (
    "loss_inverse",
    "data_size",
    "data_loss_combined",
    "verified",
    "tempered",
    "validation_loss",
    "leave_one_out",
    "shapley",
    "fltrust",
    "fedlaw",
    "fedlaw_gamma",
    "greedy_soup",
    "lorahub",
    "line_search",
    "fedawa",
)
AGGREGATIONS = (
    "fedavg",
    "fedprox",
    "scaffold",
    "fedavgm",
    "fedadagrad",
    "fedyogi",
    "fedadam",
    "median",
    "trimmed_mean",
    "krum",
    "multi_krum",
    "geometric_median",
    "fedexp",
    "norm_clipping",
)
_RANK = re.compile(r"\s*[0-9]{1,9}\s*")


class RuleSettings(BaseSettings):
    """The settings that choose a weighing rule and an aggregation rule, and those that only some of the rules read."""

    contribution_mode: Literal["cognitive", "uniform", "fedavg"] = knob(
        "contribution", "cognitive", "FCCL's softmax of scores, equal weights, or weights by samples"
    )
    contribution_source: str = knob(
        "contribution",
        "verified",
        "the score: what the server's learn split says; 1/loss, samples, samples/loss as clients report them; "
        "or a class of your own",
        choices=SOURCES,
    )
    contribution_temperature: float = knob(
        "contribution", 1.0, "softmax temperature: large is uniform, small is winner takes all", gt=0
    )
    contribution_normalize: Literal["mean", "none"] = knob(
        "contribution", "mean", "divide scores by the round's mean first; none is the raw formula"
    )
    verify_steps: int = knob("contribution", 5, "steps of exponentiated gradient, each a pass over the examples", ge=1)
    verify_examples: int = knob("contribution", 32, "examples of the learn split drawn for a round; 0 takes all", ge=0)
    verify_temperature: float = knob(
        "contribution", 0.5, "softmax temperature of the server's scores; large keeps the prior's weights", gt=0
    )
    verify_prior: Literal["samples", "uniform"] = knob("contribution", "samples", "the weights before the server looks")
    tempered_ratio: float = knob(
        "contribution", 7.0, "how many times as much as another a client of equal prior may count", ge=1
    )
    fltrust_lr: float = knob("contribution", 1.0, "how far the server goes along the mean that it trusts", gt=0)
    fedlaw_lr: float = knob("contribution", 0.3, "Adam's learning rate for the logits of the weights", gt=0)
    lorahub_steps: int = knob("contribution", 40, "losses that the search may ask for", ge=1)
    lorahub_penalty: float = knob("contribution", 0.05, "what a coefficient of size 1 costs, in the loss's unit", ge=0)
    fedawa_lr: float = knob("contribution", 0.01, "Adam's learning rate for the logits of the weights", gt=0)

    aggregation: str = knob(
        "aggregation",
        "fedavg",
        "how weighted updates become the next adapter: the weighted mean, a server optimiser, a robust rule, or a "
        "class of your own",
        choices=AGGREGATIONS,
    )
    lora_aggregation: Literal["factors", "svd", "exact", "nearly", "freeze_a", "fed_sb"] = knob(
        "aggregation",
        "factors",
        "factors: their mean; svd: the best of their rank of the mean product; exact: all of it, in ever more; "
        "nearly: the nearest product of combined factors. freeze_a: clients train B alone; "
        "fed_sb: they train the LORA_R x LORA_R matrix between frozen factors alone, with LORA_R of 32 to 200",
    )
    client_lora_r: str = knob(
        "aggregation",
        "",
        "rank that clients train, at most LORA_R; one for all, or with commas one for each; empty: LORA_R",
    )
    prox_mu: float = knob("aggregation", 0.01, "how hard clients are pulled back to the global adapter", gt=0, le=1e9)
    server_lr: float = knob(
        "aggregation", 0.0, "the server's learning rate; 0: 1 for fedavgm, 0.03 for the others", ge=0
    )
    server_momentum: float = knob(
        "aggregation", -1.0, "the server's momentum; below 0: 0 for fedadagrad, 0.9 for the others", ge=-1, lt=1
    )
    server_beta2: float = knob("aggregation", 0.99, "decay of the second moment", ge=0, lt=1)
    server_tau: float = knob("aggregation", 1e-3, "the smaller, the more adaptive", gt=0)
    max_bad_clients: int = knob("aggregation", 1, "bad clients in a round that the rule must withstand", ge=0)
    krum_keep: int = knob("aggregation", 0, "updates to keep; 0: all but MAX_BAD_CLIENTS", ge=0)
    fedexp_epsilon: float = knob(
        "aggregation", 1e-3, "bounds the step where the clients' changes cancel each other", gt=0
    )
    clip_norm: float = knob("aggregation", 0.0, "the largest norm of an update's change; 0: the round's median", ge=0)

    @field_validator("contribution_source", "aggregation")
    @classmethod
    def _names_a_rule(cls, name: str, info: ValidationInfo) -> str:
        field = cls.model_fields[str(info.field_name)]
        if name not in choices_of(field) and not is_own(name):
            raise ValueError(f"allowed is {allowed(field)}")
        return name

    @field_validator("client_lora_r")
    @classmethod
    def _ranks(cls, text: str) -> str:
        if text and not all(_RANK.fullmatch(part) and int(part) > 0 for part in text.split(",")):
            raise ValueError("must be ranks with commas between, such as 8,4,2, or one for all")
        return text

    @property
    def client_ranks(self) -> tuple[int, ...]:
        """None, one for all clients, or one for each."""
        return tuple(int(part) for part in self.client_lora_r.split(",") if part.strip())

    @property
    def lower_ranks(self) -> bool:
        """Whether clients may train fewer directions than `lora_r`."""
        return self.lora_aggregation in ("svd", "exact")
