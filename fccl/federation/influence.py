"""Influence on a run's final model: the models that other sets of clients would have made of their kept updates.

For a set S of clients every kept round is aggregated again from the updates of S, with the recorded weights divided by
their sum. Each change is made from the adapter that S has so far (Song, Tong & Wei 2019). The value of S is the fall of
the loss from the adapter that the first round began with to the final model of S: v(S) = L(start) - L(S).

    left out   v(all) - v(all without i)
    Shapley    the mean of v(S and i) - v(S) over the orders in which clients may join (Shapley 1953)

Where there are few clients all sets are tried. Of more, orders are drawn (Castro, Gómez & Tejada 2009), and the mean
has a standard error. Shapley values of all clients sum to v(all), drawn orders included.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from fccl.adapters.adapter import Adapter
from fccl.aggregation.protocol import Aggregation
from fccl.aggregation.state import ServerState
from fccl.aggregation.vectors import unflat
from fccl.contribution.adam import Numbers
from fccl.contribution.shapley import shapley_values
from fccl.display.words import plural
from fccl.errors import FederationError
from fccl.federation.kept_rounds import KeptRound, kept_round
from fccl.federation.replay import aggregated_again, ended_with
from fccl.federation.what_if import records_by_round
from fccl.paths import LogPaths
from fccl.records.after import ClientInfluence, Influence, Measure, MeasuredInfluence
from fccl.specs import RoundPlan, named_seed

Losses = tuple[float, ...]  # of one adapter, by each measure
LossOf = Callable[[Adapter], Losses]
Set = frozenset[int]
MOST_SETS = 64  # sets of clients whose model is made and measured where nobody asks for more
EXACT = "All sets of clients were tried."
SAYS = (
    "A guess without training: the updates were trained from the run's own global adapters, and each set of clients "
    "has others here."
)


@dataclass(frozen=True)
class MeasuredLoss:
    """One loss of the final model: its name, its unit, the number of examples that it is the mean of."""

    measure: Measure
    unit: str
    examples: int


@dataclass(eq=False)
class Coalitions:
    """The final models of sets of clients, made of a run's kept rounds; `loss` measures one. Each set is made once.

    `plan` says where phases begin, `results` which round's adapter is a phase's result (RESULT_ROUND=best).
    """

    logs: LogPaths
    rule: Aggregation
    plan: RoundPlan
    numbers: range
    loss: LossOf
    results: Mapping[int, int] = field(default_factory=dict)  # `results_of` the run
    on_set: Callable[[int], None] = lambda done: None
    _losses: dict[Set, Losses] = field(default_factory=dict)
    _learned: dict[int, Tensor] = field(default_factory=dict)  # by round: the change of the server's own training, (d,)
    _rounds: tuple[KeptRound, ...] = ()

    def __post_init__(self) -> None:
        self._rounds = tuple(kept_round(self.logs, number) for number in self.numbers)
        for kept in self._rounds:
            kept.require_updates()

    @property
    def clients(self) -> tuple[int, ...]:
        """All that counted in a kept round, in order."""
        return tuple(sorted({client for kept in self._rounds for client in kept.record.clients}))

    @property
    def made(self) -> int:
        """The number of sets that were made so far."""
        return len(self._losses)

    def rounds_of(self, client: int) -> int:
        """The number of kept rounds in which a client counted."""
        return sum(client in kept.record.clients for kept in self._rounds)

    def losses(self, members: Set) -> Losses:
        """L of the final model of a set; of nobody's, that of the adapter that the first round began with."""
        if members not in self._losses:
            self._losses[members] = self.loss(self.final(members))
            self.on_set(self.made)
        return self._losses[members]

    def final(self, members: Set) -> Adapter:
        """The adapter that the last round ends with. Raises as `aggregated_again` does."""
        adapter, server = self._rounds[0].adapter, self._rounds[0].server
        ends: dict[int, Adapter] = {}
        for kept in self._rounds:
            number = kept.record.round
            if self.plan.begins_phase(number) and number > self.numbers.start:
                adapter = ends.get(self.results.get(number, number - 1), adapter)
                server = self.rule.initial(adapter)
            adapter, server = self._step(kept, adapter, server, members)
            ends[number] = adapter
        return ends.get(self.results.get(self.numbers.stop, self.numbers.stop - 1), adapter)

    def _step(
        self, kept: KeptRound, adapter: Adapter, server: ServerState, members: Set
    ) -> tuple[Adapter, ServerState]:
        made = aggregated_again(kept, self.rule, adapter, server, members)
        if kept.record.learning is None:
            return made.adapter, made.state
        moved = made.adapter.vector.double() + self._learning(kept)  # (d,)
        return unflat(moved, made.adapter.form, "the server's learning"), made.state

    def _learning(self, kept: KeptRound) -> Tensor:
        """The change that the server's own training made in a round, the same for every set: (d,) float64."""
        number = kept.record.round
        if number not in self._learned:
            self._learned[number] = self._change_after(kept)
        return self._learned[number]

    def _change_after(self, kept: KeptRound) -> Tensor:
        after = ended_with(self.logs, kept.record)
        if after is None:
            raise FederationError(f"round {kept.record.round + 1}: the adapter that the server trained is kept no more")
        return after.vector.double() - aggregated_again(kept, self.rule).adapter.vector.double()


def influence(
    coalitions: Coalitions, losses: Sequence[MeasuredLoss], seed: int, run_id: str, orders: int = 0
) -> Influence:
    """The influence of every client, on every loss that `coalitions` measures. `orders` of 0: as many as `MOST_SETS`
    allows, all sets where that is enough.

    Raises `FederationError` for fewer than two clients, and where the rule cannot do with few updates.
    """
    clients = coalitions.clients
    if len(clients) < 2:
        raise FederationError("influence is of one client beside others, and fewer than two have counted")
    exact = not orders and 2 ** len(clients) <= MOST_SETS
    count = 0 if exact else orders or usual_orders(len(clients))
    found = every_set(coalitions, clients) if exact else drawn_orders(coalitions, clients, count, seed)
    figures = np.stack([left_out(coalitions, clients), *found])  # (3, clients, losses)
    return Influence(
        run_id=run_id,
        time=time.time(),
        first_round=coalitions.numbers.start,
        rounds=len(coalitions.numbers),
        orders=count,
        coalitions=coalitions.made,
        says=f"{SAYS} {EXACT if exact else plural(count, 'order') + ' drawn.'}",
        measures=tuple(_measured(coalitions, each, place, figures[:, :, place]) for place, each in enumerate(losses)),
    )


def _measured(coalitions: Coalitions, loss: MeasuredLoss, place: int, figures: Numbers) -> MeasuredInfluence:
    """The influence on one loss; `figures` are left out, Shapley value and error of each client: (3, clients)."""
    before, after = (coalitions.losses(members)[place] for members in (frozenset(), frozenset(coalitions.clients)))
    return MeasuredInfluence(
        measure=loss.measure,
        unit=loss.unit,
        examples=loss.examples,
        before=before,
        after=after,
        clients=tuple(
            ClientInfluence(
                client_id=client,
                rounds=coalitions.rounds_of(client),
                left_out=float(alone),
                shapley=float(shapley),
                error=float(error),
            )
            for client, (alone, shapley, error) in zip(coalitions.clients, figures.T, strict=True)
        ),
    )


def usual_orders(clients: int) -> int:
    """The number of orders that take about `MOST_SETS` sets, those that leave one client out among them; at least 2."""
    return max(2, (MOST_SETS - clients) // max(1, clients - 1))


def left_out(coalitions: Coalitions, clients: Sequence[int]) -> Numbers:
    """L(all without i) - L(all): (clients, losses)."""
    everybody = frozenset(clients)
    whole = np.array(coalitions.losses(everybody))  # (losses,)
    return np.array([np.array(coalitions.losses(everybody - {client})) - whole for client in clients])


def every_set(coalitions: Coalitions, clients: Sequence[int]) -> tuple[Numbers, Numbers]:
    """Exact Shapley values from the losses of all sets, and their errors, which are 0: (clients, losses) both."""
    sets = [_members(clients, place) for place in range(2 ** len(clients))]
    losses = np.array([coalitions.losses(members) for members in sets])  # (sets, losses)
    falls = losses[0] - losses
    values = np.array([shapley_values(falls[:, place].tolist()) for place in range(falls.shape[1])]).T
    return values, np.zeros_like(values)


def drawn_orders(coalitions: Coalitions, clients: Sequence[int], orders: int, seed: int) -> tuple[Numbers, Numbers]:
    """The mean of what each client brings over drawn orders, and its standard error: (clients, losses) both."""
    brought = np.array([_brought(coalitions, clients, named_seed(seed, "influence", draw)) for draw in range(orders)])
    spread = brought.std(axis=0, ddof=1) if orders > 1 else np.zeros(brought.shape[1:])
    return brought.mean(axis=0), spread / math.sqrt(orders)


def _brought(coalitions: Coalitions, clients: Sequence[int], seed: int) -> Numbers:
    """By how much the loss falls when each client joins those before it in one order: (clients, losses)."""
    order = random.Random(seed).sample(range(len(clients)), len(clients))
    before, members = np.array(coalitions.losses(frozenset())), frozenset[int]()
    falls: dict[int, Numbers] = {}
    for row in order:
        members |= {clients[row]}
        now = np.array(coalitions.losses(members))
        falls[row], before = before - now, now
    return np.array([falls[row] for row in range(len(clients))])


def _members(clients: Sequence[int], place: int) -> Set:
    """The set whose members are the bits of a number."""
    return frozenset(client for bit, client in enumerate(clients) if place >> bit & 1)


def results_of(logs: LogPaths) -> dict[int, int]:
    """Results of phases that need not be their last round's: the number after that round -> the result's round."""
    records = records_by_round(logs)
    return {number + 1: end.result_round for number, record in records.items() if (end := record.phase_end)}
