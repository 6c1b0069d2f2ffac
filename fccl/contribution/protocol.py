"""Protocols: a `Weigher` turns a round's updates into weights; `LearnLoss` is the loss that it may query.

A rule that is `Remembering` also carries a few numbers of each client from round to round.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from fccl.records.run import Verification

if TYPE_CHECKING:  # so that rules over reported numbers alone can be had without torch
    from fccl.adapters.adapter import Adapter
    from fccl.messages import ClientUpdate, FitTask
    from fccl.specs import Phase


Memory = Mapping[int, tuple[float, ...]]  # by client: what a rule knows of it from the phase's rounds before
NO_LOSS = "its loss on the server's examples is not finite"


@dataclass(frozen=True)
class Weighing:
    """The weight of each client in one round, in the order of the updates. Weights are >= 0 with sum 1.

    `unfit` are the places of updates that are left out, since their own loss is not finite (`NO_LOSS`). All else is of
    the other updates, and empty where there are none. `examples` are the places in the server's learn split of
    what was looked at, so that the weights can be made again later.

    `stretch` are the factors on the updates' changes, for rules that leave the means: the aggregation is given
    x + stretch_i (u_i - x) in the place of u_i (`fccl.contribution.stretch`). Empty: all 1.

    `memory` is what a `Remembering` rule will know in the phase's next round: all of it, also of clients that were not
    in this one.

    >>> Weighing(weights=(0.75, 0.25), scores=(30.0, 10.0)).weights
    (0.75, 0.25)
    """

    weights: tuple[float, ...]
    scores: tuple[float, ...]
    verification: Verification | None = None
    unfit: tuple[int, ...] = ()
    examples: tuple[int, ...] = ()
    stretch: tuple[float, ...] = ()
    memory: Memory = field(default_factory=dict)


class Weigher(Protocol):
    """From a round's updates to their weights. Reordering the updates reorders the weights.

    >>> class BySamples:
    ...     def weigh(self, task, updates):
    ...         samples = [update.contribution.num_samples for update in updates]
    ...         return Weighing(tuple(each / sum(samples) for each in samples), tuple(map(float, samples)))
    >>> rule: Weigher = BySamples()

    docs/own-rules.md says how a run is given such a class, and what its constructor may ask for.
    """

    def weigh(self, task: FitTask, updates: Sequence[ClientUpdate]) -> Weighing:
        """One weight an update; at least one update.

        Loads one adapter at a time: a thousand updates need not fit into memory.
        """
        ...


@runtime_checkable
class Remembering(Weigher, Protocol):
    """A rule whose weights also depend on the phase's rounds before.

    The run keeps the memory with its state, so that a resumed run and a replayed round weigh as they did.
    """

    def remembering(self, memory: Memory) -> Weigher:
        """The rule as it weighs with this memory. A phase begins with an empty one."""
        ...


def with_memory(rule: Weigher, memory: Memory) -> Weigher:
    """The rule with what it knows from the rounds before, to read and not to change; as it is where it asks for
    nothing.
    """
    return rule.remembering(MappingProxyType(dict(memory))) if isinstance(rule, Remembering) else rule


class LearnLoss(Protocol):
    """The loss L of any adapter on the examples that weights may learn from: the server's learn split.

    In an SFT round nats per response token, in a VA round the DPO loss per pair.
    """

    def examples(self, phase: Phase) -> int:
        """The number of examples that L is the mean of."""
        ...

    def drawn(self, task: FitTask) -> tuple[int, ...]:
        """The places in the learn split of the examples that L is the mean of in this round."""
        ...

    def loss(self, task: FitTask, adapter: Adapter) -> float:
        """L(adapter); infinity when it is not finite."""
        ...

    def slopes(self, task: FitTask, adapter: Adapter, directions: Iterable[Adapter]) -> tuple[float, tuple[float, ...]]:
        """L(adapter), and for each direction u the inner product of the gradient there with u.

        Where L is not finite neither need be.
        """
        ...

    def by_group(
        self, task: FitTask, adapter: Adapter, directions: Iterable[Adapter] = ()
    ) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...]]:
        """L on each of k groups of the examples that share no topic, (k,), and its slopes there, (k, directions).

        Each is scaled so that the mean over the groups is L, or its slope. What they differ by is the noise of having
        seen these topics and no others. Without directions a forward pass, and no slopes.
        """
        ...

    def learnt(self, task: FitTask) -> ClientUpdate:
        """The server's own answer to the task: one epoch of a client's training, on all examples that weights may use.

        Raises `TrainingError` when it diverges.
        """
        ...
