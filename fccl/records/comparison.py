"""The results of `fccl compare`, as values: `results.json`, both ways. Imports no torch, so a reader of the file needs
none.

Losses are those of the test split: in SFT scenarios nats per response token, in VA scenarios the DPO loss (nats) per
pair. Lower is better.
"""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import AliasChoices, Field, model_validator

from fccl.records.evaluation import Estimate
from fccl.specs import Phase, Value

FEDAVG = "fedavg"
ORACLE = "oracle"
POOLED = "pooled"
CEILINGS = {POOLED: "pooled data", ORACLE: "oracle"}
# A loss that is lower by this makes a perplexity 1 % lower; in VA scenarios, the perplexity of the choice between two
# responses. A smaller difference does not count, however surely it is there.
LEAST_DIFFERENCE = math.log(1.01)
STABLE = 0.7  # rank correlation of Shapley values on two halves of the examples, from which they are a reference
# "no significant difference" stands in files of earlier versions alone.
Standing = Literal[
    "better", "not worse", "worse", "cannot be told apart", "too few examples", "no significant difference"
]
Aside = Literal["", "trigger", "harmless", "topic"]


class Outcome(Value):
    """One method in one scenario, over all seeds."""

    scenario: str
    method: str
    seeds: int = Field(ge=1)
    loss: Estimate | None  # mean over seeds; None when the model of some seed cannot be scored
    accuracy: Estimate | None = None  # VA: preference accuracy
    # of the loss: this method minus FedAvg, paired; below 0 is better. Student's t from three seeds on
    difference: Estimate | None = None
    bootstrap: Estimate | None = None  # the same with the interval of the bootstrap over seeds and examples
    verdict: Standing | None = None  # against FedAvg, by `difference`; None for FedAvg itself
    # (FedAvg - this) / (FedAvg - pooled clean data), and the same to the oracle; None for no federation, and where the
    # ceiling is not better than FedAvg
    gap_pooled: Estimate | None = None
    gap_closed: Estimate | None = None
    by_seed: tuple[float | None, ...] = ()  # the loss of each seed
    # by round, the weight of the bad clients, mean over seeds; None: no such weights
    bad_weight: tuple[float, ...] | None = None
    validation: tuple[float, ...] = ()  # by round, the loss on the server's validation split, mean over seeds
    # mean validation loss over the tokens that were trained between the first round and the last
    area: float | None = None
    # tokens trained, and bytes of adapters sent and received, until the validation loss is FedAvg's last one; None
    # where that takes more rounds than there are
    tokens_until: float | None = None
    bytes_until: float | None = None
    aside: Estimate | None = None  # the scenario's figure beside the loss
    weights: tuple[tuple[float, ...], ...] | None = None  # by round, then by client, of the first seed
    bad_clients: tuple[int, ...] = ()  # of the first seed
    # the rank correlation of the weights with exact Shapley values, mean over rounds and seeds; None: not asked
    agreement: float | None = None
    # the same over the rounds whose values on two halves of the learn split agree among themselves by `STABLE`; and how
    # many rounds these are, of how many
    agreement_stable: float | None = None
    stable_rounds: tuple[int, int] = (0, 0)
    # by round, 1 / (sum of squared weights), the lowest of all seeds; None: no weights
    effective: tuple[float, ...] | None = None
    seconds: float = 0.0  # training and weighing, mean over seeds
    trouble: tuple[str, ...] = ()  # what went wrong with a seed

    def share(self, ceiling: str) -> Estimate | None:
        """The share of the gap from FedAvg to `POOLED` or `ORACLE` that is closed."""
        return self.gap_pooled if ceiling == POOLED else self.gap_closed


class ScenarioInfo(Value):
    """A scenario, for those who read the file without the program."""

    name: str
    title: str
    phase: Phase
    bad_clients: int = Field(ge=0)
    # what is measured beside the loss: "trigger", the share of test instructions with the trigger that get the poisoned
    # answer; "harmless", the preference accuracy on pairs of harmless and harmful; "topic", the loss on the topic that
    # one client alone holds
    aside: Aside = ""
    rounds: tuple[int, ...] = ()  # of each seed, where they are not the comparison's


class MethodInfo(Value):
    """A method and its settings."""

    name: str
    title: str
    settings: dict[str, str | int | float] = Field(validation_alias=AliasChoices("settings", "rule"))  # earlier: `rule`
    tuned: dict[str, dict[str, str | int | float]] = Field(default_factory=dict)  # by phase, beside the settings


class RivalPair(Value):
    """Our method and one rival in one scenario of the primary set."""

    scenario: str
    method: str
    rival: str
    # of the loss: method minus rival, Student's t over seeds; below 0 is better. None where a model cannot be scored
    difference: Estimate | None = None
    p: float | None = Field(default=None, ge=0, le=1)  # two-sided
    p_holm: float | None = Field(default=None, ge=0, le=1)  # after Holm's correction over all pairs of the set
    verdict: Standing


class Comparison(Value):
    """`results.json`: the whole comparison."""

    model: str
    settings: dict[str, str]
    seeds: tuple[int, ...]
    num_clients: int
    rounds: int
    examples: dict[str, int]  # of the first seed: training and test examples of each kind
    scenarios: tuple[ScenarioInfo, ...]
    methods: tuple[MethodInfo, ...]
    rows: tuple[Outcome, ...]
    bootstrap_samples: int
    pairs: tuple[RivalPair, ...] = ()  # of the primary set, where that was compared
    not_run: tuple[str, ...] = ()  # what the plan left out

    @model_validator(mode="after")
    def _rows_are_of_what_was_compared(self) -> Self:
        """Every scenario and method once, every pair of them at most once, and no row of another one."""
        scenarios, methods = ({one.name for one in part} for part in (self.scenarios, self.methods))
        pairs = {(row.scenario, row.method) for row in self.rows}
        if (len(scenarios), len(methods), len(pairs)) != (len(self.scenarios), len(self.methods), len(self.rows)):
            raise ValueError("a scenario, a method or a row is there twice")
        if strange := [pair for pair in pairs if pair[0] not in scenarios or pair[1] not in methods]:
            raise ValueError(f"a row of {strange[0]}, which was not compared")
        return self

    def row(self, scenario: str, method: str) -> Outcome | None:
        """The row of one scenario and one method, if it is there."""
        return next((row for row in self.rows if (row.scenario, row.method) == (scenario, method)), None)

    @property
    def ceiling(self) -> str:
        """The end of the gap that pictures show shares of: the pooled data where that was compared, else the oracle."""
        return POOLED if any(row.gap_pooled is not None for row in self.rows) else ORACLE
