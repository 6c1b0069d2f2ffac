"""The attacks of an audit: by an example's loss, and by the signs of an update beside the example's gradient.

A score is the higher, the more the attack believes that the example was trained on. n examples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fccl.adapters.adapter import Adapter
from fccl.data.examples import SftExample
from fccl.errors import FederationError
from fccl.evaluation.membership import exposure, membership
from fccl.federation.kept_rounds import kept_round
from fccl.library.canaries import REPEATS, AuditData
from fccl.model.encoding import Encoded, encode_sft
from fccl.model.language_model import LanguageModel
from fccl.model.objectives import objective_for
from fccl.model.scoring import score_sft
from fccl.paths import LogPaths
from fccl.records.audit import Attack
from fccl.training.objective import ObjectiveUnderModel

MOST = 300  # members, and others, that are attacked
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Candidates:
    """The examples of an audit in tokens, in the order members, others, canaries by `REPEATS`, unused."""

    rows: Sequence[Encoded]
    members: int
    others: int
    planted: int  # of each number of repeats

    @classmethod
    def of(cls, model: LanguageModel, data: AuditData) -> Candidates:
        """At most `MOST` members and others. Raises `ModelError` for a chat template that fails."""
        members, others = data.members[:MOST], data.others[:MOST]
        examples: list[SftExample] = [*members, *others, *(each for group in data.canaries for each in group)]
        spec = model.spec
        rows = encode_sft(model.tokenizer, [*examples, *data.unused], spec.max_length, spec.text)
        return cls(rows, len(members), len(others), len(data.canaries[0]))

    def attack(self, target: str, by: str, scores: Floats) -> Attack:
        """The figures of an attack whose scores are of all rows, or of members and others alone."""
        known = self.members + self.others
        told = membership(scores[: self.members], scores[self.members : known])
        if len(scores) == known:
            return Attack(target=target, by=by, membership=told)
        groups = np.split(scores[known:], [self.planted * (place + 1) for place in range(len(REPEATS))])
        exposures = (exposure(group, groups[-1], repeats) for group, repeats in zip(groups, REPEATS, strict=False))
        return Attack(target=target, by=by, membership=told, exposures=tuple(exposures))


@dataclass(frozen=True, eq=False)
class Attacker:
    """Has the base model and what a federation releases. `start` is the adapter that the run began with."""

    model: LanguageModel
    candidates: Candidates
    start: Adapter
    batch_size: int

    def released(self, adapter: Adapter) -> Attack:
        """The released adapter, by how far an example's loss has fallen since the start."""
        return self.candidates.attack("released adapter", "loss", self._fall(self.start, adapter))

    def updates(self, logs: LogPaths, client_id: int, rounds: Sequence[int]) -> Iterator[Attack | str]:
        """A client's updates of these rounds, each by both attacks; the reason where one was not kept."""
        for number in rounds:
            try:
                before, after = _update(logs, client_id, number)
            except FederationError as error:
                yield f"update of round {number + 1}: {error}"
                continue
            name = f"update of round {number + 1}"
            yield self.candidates.attack(name, "loss", self._fall(before, after))
            yield self.candidates.attack(name, "gradient signs", self.signs(before, after))

    def _fall(self, before: Adapter, after: Adapter) -> Floats:
        """(n,): the fall of the responses' negative log-likelihood, in nats."""
        return self._nll(before) - self._nll(after)

    def _nll(self, adapter: Adapter) -> Floats:
        self.model.load(adapter)
        return score_sft(self.model, self.candidates.rows, self.batch_size).nll

    def signs(self, before: Adapter, after: Adapter) -> Floats:
        """(members + others,): Σ sign(Δ) · (-g) / Σ |g|. The share of the gradient's mass that the update went against,
        less the share that it went along with. g is taken at the adapter that the update began with.
        """
        rows = self.candidates.rows[: self.candidates.members + self.candidates.others]
        self.model.load(before)
        loss = ObjectiveUnderModel(self.model, objective_for("sft", [(row,) for row in rows]))
        moved = {name: torch.sign(tensor - before.tensors[name]) for name, tensor in after.tensors.items()}
        return np.array([_match(moved, loss.at([place]).gradient) for place in range(len(rows))])


def _match(moved: Mapping[str, Tensor], gradient: Mapping[str, Tensor]) -> float:
    """-1 to 1; 0 where the example has no gradient."""
    against = -sum(float((moved[name] * part.cpu()).sum()) for name, part in gradient.items())
    return against / max(sum(float(part.abs().sum()) for part in gradient.values()), 1e-30)


def _update(logs: LogPaths, client_id: int, number: int) -> tuple[Adapter, Adapter]:
    """The adapter that a client's round began with, and the one that it sent. Raises `FederationError`."""
    kept = kept_round(logs, number)
    found = next((update for update in kept.arrived() if update.client_id == client_id), None)
    if found is None:
        raise FederationError(f"client {client_id} sent none in round {number + 1}")
    return kept.adapter, found.with_frozen(kept.adapter).adapter.load()
