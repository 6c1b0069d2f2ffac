"""The server's validation split: what the global adapter's loss on it is after a round, and any adapter's on a few
examples of it before.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from fccl.adapters.adapter import Adapter
from fccl.adapters.ranks import with_frozen
from fccl.data.examples import PreferencePair, SftExample
from fccl.evaluation.preference import accuracy
from fccl.messages import FitTask
from fccl.model.encoding import Encoded, collate, encode_pairs, encode_sft
from fccl.model.language_model import LanguageModel, cpu_threads
from fccl.model.losses import dpo_losses, sequence_log_probs
from fccl.model.scoring import EncodedPair, PairScores, length_sorted_batches, pair_log_probs, score_pairs, score_sft
from fccl.records.run import Validation
from fccl.specs import Phase, named_seed

_Share = Callable[[list[int]], Tensor]


class Validator:
    """Scores the global adapter on the validation split. Called with a round's phase, its new adapter and, in VA
    rounds, the reference adapter.

    The encoded rows are kept, and so are the reference policy's log-probabilities, as long as the reference is the
    same.
    """

    def __init__(
        self,
        model: LanguageModel,
        sft: Sequence[SftExample],
        va: Sequence[PreferencePair],
        *,
        beta: float,
        batch_size: int,
    ) -> None:
        self.model, self.sft, self.va, self.beta, self.batch_size = model, sft, va, beta, batch_size
        self._reference: tuple[str, PairScores] | None = None

    def __call__(self, phase: Phase, adapter: Adapter, reference: Adapter | None) -> Validation:
        """Leaves `adapter` loaded.

        Raises `AdapterError`, and `ValueError` when a VA round comes without its reference.
        """
        return self._response_loss(adapter) if phase == "sft" else self._preference_loss(adapter, reference)

    @cached_property
    def rows(self) -> list[Encoded]:
        """The instructions of the split."""
        return encode_sft(self.model.tokenizer, self.sft, self.model.spec.max_length)

    @cached_property
    def pairs(self) -> list[EncodedPair]:
        """The preference pairs of the split."""
        return encode_pairs(self.model.tokenizer, self.va, self.model.spec.max_length)

    def _response_loss(self, adapter: Adapter) -> Validation:
        """Nats per response token."""
        self.model.load(adapter)
        scores = score_sft(self.model, self.rows, self.batch_size)
        return Validation(loss=float(scores.nll.sum() / scores.tokens.sum()), examples=len(self.rows))

    def _preference_loss(self, adapter: Adapter, reference: Adapter | None) -> Validation:
        """Mean DPO loss against the reference, and preference accuracy by sum of log-probabilities."""
        if reference is None:
            raise ValueError("a VA round is validated against its reference adapter")
        before = self.reference_scores(reference)
        self.model.load(adapter)
        now = score_pairs(self.model, self.pairs, self.batch_size)
        logs = [torch.from_numpy(part) for part in (now.chosen, now.rejected, before.chosen, before.rejected)]
        loss = dpo_losses(logs[0], logs[1], logs[2], logs[3], self.beta).mean()
        return Validation(loss=float(loss), preference_accuracy=accuracy(now.margins), examples=len(self.pairs))

    def reference_scores(self, reference: Adapter) -> PairScores:
        """log π_ref of all pairs: computed once, since the reference does not change between VA rounds.

        May leave `reference` loaded.
        """
        if self._reference is None or self._reference[0] != reference.sha256:
            self.model.load(reference)
            self._reference = reference.sha256, score_pairs(self.model, self.pairs, self.batch_size)
        return self._reference[1]


class VerificationLoss:
    """The loss of any adapter on at most `examples` examples of the split (0: all of it), and its slopes along
    adapters.

    In SFT rounds nats per response token, in VA rounds the DPO loss per pair against the task's reference. An adapter
    may hold what clients train of the task's alone; the rest then stands behind it, as it did for them. The examples
    are drawn anew for every round from the task's seed, in proportion to topics. Runs with the task's number of
    threads: the weights of a round depend on the last bits of what is computed here.
    """

    def __init__(self, validator: Validator, examples: int) -> None:
        self._split, self._examples = validator, examples

    def examples(self, phase: Phase) -> int:
        """How many the loss is the mean of."""
        held = len(self._split.sft if phase == "sft" else self._split.va)
        return min(self._examples or held, held)

    def drawn(self, task: FitTask) -> tuple[int, ...]:
        """The places in the split of the examples that this round's loss is the mean of, in ascending order."""
        examples = self._split.sft if task.phase == "sft" else self._split.va
        seed = named_seed(task.seed, "verification", task.round)
        return tuple(proportional_draw([example.topic for example in examples], self.examples(task.phase), seed))

    def loss(self, task: FitTask, adapter: Adapter) -> float:
        """Infinity when it is not finite. Leaves `adapter` loaded.

        Raises `ValueError` when a VA task comes without its reference.
        """
        with cpu_threads(task.train.threads), torch.no_grad():
            return self._sum(task, adapter, lambda share: None)

    def slopes(self, task: FitTask, adapter: Adapter, directions: Iterable[Adapter]) -> tuple[float, tuple[float, ...]]:
        """The loss and, for each direction, the inner product of its gradient with respect to the LoRA factors with it,
        in float64.
        """
        factors = self._split.model.factors
        gradient = {name: torch.zeros(parameter.shape, dtype=torch.float64) for name, parameter in factors.items()}

        def add(share: Tensor) -> None:
            parts = torch.autograd.grad(share, list(factors.values()), materialize_grads=True)
            for total, part in zip(gradient.values(), parts, strict=True):
                total.add_(part.double().cpu())

        with cpu_threads(task.train.threads), torch.enable_grad():
            loss = self._sum(task, adapter, add)
            return loss, tuple(_inner_product(gradient, direction) for direction in directions)

    def _sum(self, task: FitTask, adapter: Adapter, on_share: Callable[[Tensor], None]) -> float:
        """The loss, batch by batch: `on_share` gets each batch's share in the mean, to differentiate."""
        lengths, share_of = self._responses(task) if task.phase == "sft" else self._preferences(task)
        self._split.model.load(with_frozen(adapter, task.adapter))
        total = 0.0
        for indices in length_sorted_batches(lengths, task.train.batch_size):  # as much memory as a training step
            share = share_of(indices)
            on_share(share)
            total += float(share.detach())
        return total if math.isfinite(total) else math.inf

    def _responses(self, task: FitTask) -> tuple[list[int], _Share]:
        """The tokens of each row that was drawn, and a batch's part of the NLL per response token."""
        model = self._split.model
        rows = [self._split.rows[index] for index in self.drawn(task)]
        tokens = sum(len(row.ids) - row.prompt_length for row in rows)

        def share(indices: list[int]) -> Tensor:
            log_probs, mask = model.response_log_probs(collate([rows[index] for index in indices], model.pad_id))
            return -sequence_log_probs(log_probs, mask).double().sum() / max(1, tokens)

        return [len(row.ids) for row in rows], share

    def _preferences(self, task: FitTask) -> tuple[list[int], _Share]:
        """The tokens that each pair that was drawn takes in a batch, and a batch's part of the DPO loss per pair."""
        if task.reference is None:
            raise ValueError("a VA round is verified against its reference adapter")
        model, drawn = self._split.model, list(self.drawn(task))
        pairs, known = [self._split.pairs[index] for index in drawn], self._split.reference_scores(task.reference)
        chosen_before, rejected_before = (
            torch.from_numpy(part[drawn]).to(model.device) for part in (known.chosen, known.rejected)
        )

        def share(indices: list[int]) -> Tensor:
            policy = pair_log_probs(model, [pairs[index] for index in indices]).double()
            return dpo_losses(
                policy[:, 0], policy[:, 1], chosen_before[indices], rejected_before[indices], task.train.dpo_beta
            ).sum() / len(pairs)

        return [2 * max(len(chosen.ids), len(rejected.ids)) for chosen, rejected in pairs], share


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


def _inner_product(gradient: Mapping[str, Tensor], direction: Adapter) -> float:
    return sum(float((part * direction.tensors[name].double()).sum()) for name, part in gradient.items())
