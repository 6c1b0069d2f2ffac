"""The results of `fccl compare`, as values: `results.json`, both ways. Imports no torch, so a reader of the file needs
none.

Losses are those of the test split: in SFT scenarios nats per response token, in VA scenarios the DPO loss (nats) per
pair. Lower is better.
"""

from __future__ import annotations

from typing import Self

from pydantic import AliasChoices, Field, model_validator

from fccl.records.evaluation import Estimate, Verdict
from fccl.specs import Phase, Value


class Outcome(Value):
    """One method in one scenario, over all seeds."""

    scenario: str
    method: str
    seeds: int = Field(ge=1)
    loss: Estimate | None  # mean over seeds; None when the model of some seed cannot be scored
    accuracy: Estimate | None = None  # VA: preference accuracy
    difference: Estimate | None = None  # of the loss: this method minus FedAvg, paired; below 0 is better
    verdict: Verdict | None = None  # against FedAvg; None for FedAvg itself
    gap_closed: Estimate | None = (
        # (FedAvg - this) / (FedAvg - oracle); None for no federation, and when the oracle is not better than FedAvg
        None
    )
    by_seed: tuple[float | None, ...] = ()  # the loss of each seed
    bad_weight: tuple[float, ...] | None = (
        None  # by round, the weight of the bad clients, mean over seeds; None: no such weights
    )
    validation: tuple[float, ...] = ()  # by round, the loss on the server's validation split, mean over seeds
    weights: tuple[tuple[float, ...], ...] | None = None  # by round, then by client, of the first seed
    bad_clients: tuple[int, ...] = ()  # of the first seed
    seconds: float = 0.0  # training and weighing, mean over seeds
    trouble: tuple[str, ...] = ()  # what went wrong with a seed


class ScenarioInfo(Value):
    """A scenario, for those who read the file without the program."""

    name: str
    title: str
    phase: Phase
    bad_clients: int = Field(ge=0)


class MethodInfo(Value):
    """A method and its settings."""

    name: str
    title: str
    settings: dict[str, str | int | float] = Field(validation_alias=AliasChoices("settings", "rule"))  # earlier: `rule`


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


FEDAVG = "fedavg"
ORACLE = "oracle"
