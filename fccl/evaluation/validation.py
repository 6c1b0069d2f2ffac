"""The server's own examples: the loss of the global adapter on the validation split after a round, and of any adapter
on the learn split before it ends.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from typing import Literal, Self

import torch
from torch import Tensor

from fccl.adapters.adapter import Adapter
from fccl.adapters.ranks import with_frozen
from fccl.data.examples import PreferencePair, SftExample, read_examples
from fccl.data.shards import ClientShard
from fccl.evaluation.preference import accuracy
from fccl.messages import ClientUpdate, FitTask, Learner
from fccl.model.encoding import Encoded, Responses, encode
from fccl.model.language_model import LanguageModel, Loss, cpu_threads
from fccl.model.objectives import Objective, objective_for
from fccl.model.scoring import EncodedPair, PairScores, length_sorted_batches, score_pairs, score_sft
from fccl.paths import DataPaths
from fccl.records.run import ExampleLosses, Validation
from fccl.specs import Phase, PreferenceSpec, named_seed

ServerSplit = Literal["learn", "validation"]
SERVER = 999_999_999  # the client number under which the server trains; no federation has so many

SHORT_TOKENS = 1024  # of a batch, padding included: less memory than a usual training step of GPT-2 takes
MOST_GROUPS = 8  # of the examples: enough for a standard error, and each has a gradient in memory
_Share = tuple[list[Responses], Loss]  # a batch, and its part of the mean loss
_Gradient = Mapping[str, Tensor]


class Validator:
    """One of the server's splits under its model. Called with a phase, an adapter and, in phases that take one, the
    reference adapter, it scores the adapter on the examples of that phase.

    The encoded examples are kept, and so are the reference policy's log-probabilities, as long as the reference is the
    same.
    """

    def __init__(
        self,
        model: LanguageModel,
        sft: Sequence[SftExample],
        va: Sequence[PreferencePair],
        *,
        preference: PreferenceSpec,
        batch_size: int,
        threads: int = 0,
    ) -> None:
        self.model, self.sft, self.va = model, sft, va
        self.preference, self.batch_size = preference, batch_size
        self._threads = threads  # 0: as many as torch takes; the last bits of a loss depend on it
        self._encoded: dict[Phase, list[Responses]] = {}
        self._reference: tuple[str, PairScores] | None = None

    @classmethod
    def of(
        cls,
        model: LanguageModel,
        data: DataPaths,
        split: ServerSplit,
        *,
        preference: PreferenceSpec,
        batch_size: int,
        threads: int = 0,
    ) -> Self:
        """The validator of a split that `fccl prepare` has put aside for the server. Raises `DataError`."""
        sft = read_examples(data.server_split(split, "sft"), SftExample)
        va = read_examples(data.server_split(split, "va"), PreferencePair)
        return cls(model, sft, va, preference=preference, batch_size=batch_size, threads=threads)

    def __call__(self, phase: Phase, adapter: Adapter, reference: Adapter | None) -> Validation:
        """Leaves `adapter` loaded.

        Raises `AdapterError`, and `ValueError` without a reference whose loss takes one.
        """
        with cpu_threads(self._threads):
            return _VALIDATION[phase](self, phase, adapter, reference)

    def by_example(self, phase: Phase, adapter: Adapter, reference: Adapter | None) -> ExampleLosses:
        """The losses that the mean is made of. Leaves `adapter` loaded; raises as the call does."""
        with cpu_threads(self._threads):
            return _BY_EXAMPLE[phase](self, phase, adapter, reference)

    def split(self, phase: Phase) -> Sequence[SftExample] | Sequence[PreferencePair]:
        """The examples of a phase as text."""
        splits: dict[Phase, Sequence[SftExample] | Sequence[PreferencePair]] = {"sft": self.sft, "va": self.va}
        return splits[phase]

    def examples(self, phase: Phase) -> list[Responses]:
        """The examples of a phase in tokens."""
        if phase not in self._encoded:
            spec, tokenizer = self.model.spec, self.model.tokenizer
            self._encoded[phase] = encode(tokenizer, phase, self.split(phase), spec.max_length, spec.text)
        return self._encoded[phase]

    @property
    def rows(self) -> list[Encoded]:
        """The instructions of the split."""
        return [row for (row,) in self.examples("sft")]

    @property
    def pairs(self) -> list[EncodedPair]:
        """The preference pairs of the split."""
        return [(chosen, rejected) for chosen, rejected in self.examples("va")]

    def reference_scores(self, reference: Adapter) -> PairScores:
        """log π_ref of all pairs: computed once, since the reference does not change between VA rounds.

        May leave `reference` loaded.
        """
        if self._reference is None or self._reference[0] != reference.sha256:
            self.model.load(reference)
            self._reference = reference.sha256, score_pairs(self.model, self.pairs, self.batch_size)
        return self._reference[1]


def _response_loss(split: Validator, phase: Phase, adapter: Adapter, reference: Adapter | None) -> Validation:
    """Nats per response token."""
    split.model.load(adapter)
    scores = score_sft(split.model, split.rows, split.batch_size)
    return Validation(loss=float(scores.nll.sum() / scores.tokens.sum()), examples=len(scores.tokens))


def _preference_loss(split: Validator, phase: Phase, adapter: Adapter, reference: Adapter | None) -> Validation:
    """Mean loss of the pairs, and preference accuracy by sum of log-probabilities."""
    before = None if reference is None else split.reference_scores(reference).log_probs
    split.model.load(adapter)
    now = score_pairs(split.model, split.pairs, split.batch_size)
    objective, every = objective_for(phase, split.examples(phase), before, split.preference), range(len(now.chosen))
    loss = float(objective.total(every, now.log_probs) / objective.count(every))
    return Validation(loss=loss, preference_accuracy=accuracy(now.margins), examples=len(every))


def _response_losses(split: Validator, phase: Phase, adapter: Adapter, reference: Adapter | None) -> ExampleLosses:
    """Of each instruction: nats, and response tokens."""
    split.model.load(adapter)
    scores = score_sft(split.model, split.rows, split.batch_size)
    return ExampleLosses(losses=tuple(scores.nll.tolist()), units=tuple(scores.tokens.tolist()))


def _pair_losses(split: Validator, phase: Phase, adapter: Adapter, reference: Adapter | None) -> ExampleLosses:
    """Of each pair: its loss, and 1."""
    before = None if reference is None else split.reference_scores(reference).log_probs
    split.model.load(adapter)
    now = score_pairs(split.model, split.pairs, split.batch_size)
    objective, every = objective_for(phase, split.examples(phase), before, split.preference), range(len(now.chosen))
    losses = objective.losses(now.log_probs, objective.constants(every))
    return ExampleLosses(losses=tuple(losses.tolist()), units=(1.0,) * len(every))


_BY_EXAMPLE: Mapping[Phase, Callable[[Validator, Phase, Adapter, Adapter | None], ExampleLosses]] = {
    "sft": _response_losses,
    "va": _pair_losses,
}
_VALIDATION: Mapping[Phase, Callable[[Validator, Phase, Adapter, Adapter | None], Validation]] = {
    "sft": _response_loss,
    "va": _preference_loss,
}


class VerificationLoss:
    """The loss of any adapter on at most `examples` examples of the learn split (0: all of it), and its slopes along
    adapters.

    In SFT rounds nats per response token, in VA rounds the preference loss per pair. An adapter
    may hold the trained directions of the task's alone; the others then stay frozen, as they did for the clients. The
    examples are drawn anew for every round from the task's seed, in proportion to topics. Runs with the task's number
    of threads: the weights of a round depend on the last bits of what is computed here.
    """

    def __init__(
        self, learn: Validator, examples: int, learner: Callable[[LanguageModel], Learner] | None = None
    ) -> None:
        self._split, self._examples, self._learner_of = learn, examples, learner
        self._prepared: tuple[FitTask, _Prepared] | None = None  # of the task that was asked about last

    def examples(self, phase: Phase) -> int:
        """The number of examples that the loss is the mean of."""
        held = len(self._split.split(phase))
        return min(self._examples or held, held)

    def drawn(self, task: FitTask) -> tuple[int, ...]:
        """The places in the split of the examples that this round's loss is the mean of, in ascending order."""
        seed = named_seed(task.seed, "verification", task.round)
        topics = [example.topic for example in self._split.split(task.phase)]
        return tuple(proportional_draw(topics, self.examples(task.phase), seed))

    def loss(self, task: FitTask, adapter: Adapter) -> float:
        """Infinity when it is not finite. Leaves `adapter` loaded."""
        with cpu_threads(task.train.threads):
            return _finite(self._total(self._batches(task, adapter)))

    def slopes(self, task: FitTask, adapter: Adapter, directions: Iterable[Adapter]) -> tuple[float, tuple[float, ...]]:
        """The loss and, for each direction, the inner product of its gradient with respect to the LoRA factors with it,
        in float64.
        """
        with cpu_threads(task.train.threads):
            loss, gradient = self._gradient(self._batches(task, adapter))
            return _finite(loss), tuple(_inner_product(gradient, direction) for direction in directions)

    def by_group(
        self, task: FitTask, adapter: Adapter, directions: Iterable[Adapter] = ()
    ) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...]]:
        """The loss and its slopes on each of at most `MOST_GROUPS` groups of the examples, no topic in two of them.

        Without directions a forward pass, else a forward and a backward pass; a gradient of each group is in memory.
        """
        ends = iter(directions)
        first = next(ends, None)
        with cpu_threads(task.train.threads):
            groups = self._prepare(task, adapter).groups
            if first is None:
                return tuple(_finite(len(groups) * self._total(batches)) for batches in groups), ()
            found = [self._gradient(batches) for batches in groups]
            slopes = [  # of one direction at a time: all need not fit into memory
                tuple(len(groups) * _inner_product(gradient, end) for _, gradient in found)
                for end in chain([first], ends)
            ]
            losses = tuple(_finite(len(groups) * loss) for loss, _ in found)
            return losses, tuple(zip(*slopes, strict=True))

    def learnt(self, task: FitTask) -> ClientUpdate:
        """One epoch of the task's training on the whole split. Leaves the result loaded.

        Raises `TrainingError` when it diverges, `ValueError` when this loss was made without a learner.
        """
        shard = ClientShard(SERVER, tuple(self._split.sft), tuple(self._split.va))
        one_epoch = replace(task, train=task.train.model_copy(update={"epochs": 1}), corrections=None)
        return self._learner.fit(one_epoch, shard, lambda status: None)

    @cached_property
    def _learner(self) -> Learner:
        """One for the whole run: it remembers the reference's log-probabilities."""
        if self._learner_of is None:
            raise ValueError("this loss can judge adapters, and was given no learner to train one")
        return self._learner_of(self._split.model)

    def _batches(self, task: FitTask, adapter: Adapter) -> Sequence[_Share]:
        """The task's examples in batches. Loads `adapter`."""
        return self._prepare(task, adapter).batches

    def _prepare(self, task: FitTask, adapter: Adapter) -> _Prepared:
        """The task's examples, prepared once. Loads `adapter`."""
        if self._prepared is None or self._prepared[0] is not task:
            topics = [self._split.split(task.phase)[place].topic for place in self.drawn(task)]
            self._prepared = task, _Prepared(self._objective(task), task.train.batch_size, topics)
        self._split.model.load(with_frozen(adapter, task.adapter))
        return self._prepared[1]

    def _total(self, batches: Sequence[_Share]) -> float:
        """The sum of the batches' parts: a forward pass."""
        return sum(float(share(self._split.model.response_log_probs(batch))) for batch, share in batches)

    def _gradient(self, batches: Sequence[_Share]) -> tuple[float, _Gradient]:
        """The same with its gradient with respect to the LoRA factors, in float64: a forward and a backward pass."""
        model, loss = self._split.model, 0.0
        gradient = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in model.form.shapes.items()}
        for batch, share in batches:
            found = model.loss_and_gradient(batch, share)
            loss += found.loss
            for name, part in found.gradient.items():
                gradient[name].add_(part.double().cpu())
        return loss, gradient

    def _objective(self, task: FitTask) -> Objective:
        """The task's loss over the examples that are drawn for it. May leave the reference loaded."""
        drawn, split = self.drawn(task), self._split.examples(task.phase)
        reference = None if task.reference is None else self._reference_of(task.reference, drawn)
        return objective_for(task.phase, [split[index] for index in drawn], reference, task.train.preference)

    def _reference_of(self, reference: Adapter, drawn: Sequence[int]) -> Tensor:
        """log π_ref of the pairs that are drawn, (n, 2). What earlier rounds have drawn does not change a bit of it."""
        split, pairs = self._split, self._split.pairs
        if len(drawn) == len(pairs):
            return split.reference_scores(reference).log_probs
        split.model.load(reference)
        return score_pairs(split.model, [pairs[index] for index in drawn], split.batch_size).log_probs


@dataclass(frozen=True, eq=False)
class _Prepared:
    """The mean of an objective over its examples, in batches; and the same group by group."""

    objective: Objective
    batch_size: int
    topics: Sequence[str]  # of each example

    @cached_property
    def batches(self) -> list[_Share]:
        """All examples."""
        return _shares(self.objective, self.batch_size, range(len(self.topics)))

    @cached_property
    def groups(self) -> list[list[_Share]]:
        """Each group of `groups_by_topic`. The parts of all sum to the mean over all examples."""
        groups = groups_by_topic(self.topics, MOST_GROUPS)
        return [_shares(self.objective, self.batch_size, group) for group in groups]


def _shares(objective: Objective, batch_size: int, places: Sequence[int]) -> list[_Share]:
    """The part that the examples at these places have in the mean of an objective, in batches: as many examples as a
    training step has, or more of them while they are short.
    """
    examples = objective.examples
    sizes = [_padded_tokens(examples[place]) for place in places]
    count = objective.count(range(len(examples)))
    most = max(batch_size, SHORT_TOKENS // max(sizes))
    batches = [[places[index] for index in indices] for indices in length_sorted_batches(sizes, most)]
    return [([examples[place] for place in batch], partial(_share, objective, batch, count)) for batch in batches]


def _share(objective: Objective, indices: Sequence[int], count: int, log_probs: Tensor) -> Tensor:
    """A batch's part of the mean loss, in float64."""
    return objective.total(indices, log_probs.double()) / count


def _padded_tokens(responses: Responses) -> int:
    return len(responses) * max(len(row.ids) for row in responses)


def _finite(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf


def proportional_draw(topics: Sequence[str], count: int, seed: int) -> list[int]:
    """`count` indices without repetition, each topic with its share of them, up or down to the next whole number; in
    ascending order.

    A systematic sample: the indices in order of topic, shuffled within one, and every (n / count)-th of them from a
    random start. A sample that missed a topic would hold back the client that alone has it.
    """
    draw = random.Random(seed)
    order = sorted(range(len(topics)), key=lambda index: (topics[index], draw.random()))
    start = draw.randrange(len(topics))
    return sorted(order[(place * len(topics) + start) // count] for place in range(count))


def groups_by_topic(topics: Sequence[str], most: int) -> list[list[int]]:
    """The places of the examples in at most so many groups, all of a topic in one; each topic of the most frequent
    first goes where there are fewest. Examples without a topic are each their own.

    >>> groups_by_topic(["a", "b", "a", "c"], 2)
    [[0, 2], [1, 3]]
    """
    held: dict[tuple[str, int], list[int]] = {}
    for place, topic in enumerate(topics):
        held.setdefault((topic, -1 if topic else place), []).append(place)
    groups: list[list[int]] = [[] for _ in range(min(most, len(held)))]
    for _, places in sorted(held.items(), key=lambda item: (-len(item[1]), item[0])):
        min(groups, key=len).extend(places)
    return groups


def _inner_product(gradient: Mapping[str, Tensor], direction: Adapter) -> float:
    return sum(float((part * direction.tensors[name].double()).sum()) for name, part in gradient.items())
