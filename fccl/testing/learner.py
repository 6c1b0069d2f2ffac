"""`LearnerContract`: what every `Learner` must do, as a suite that its author can run too.

A subclass says which learner is tested, on what; pytest then collects the suite's tests with it:

    from fccl.testing.learner import LearnerContract, Subject

    class TestMyLearner(LearnerContract):
        @pytest.fixture
        def subject(self):
            return Subject(MyLearner, model=MODEL, train=TRAIN, start=MODEL_AT_START, shard=SHARD)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from fccl import phases
from fccl.adapters.adapter import Adapter
from fccl.adapters.ranks import of_rank, rank_of
from fccl.data.shards import ClientShard
from fccl.errors import FcclError
from fccl.messages import ClientUpdate, FitTask, Learner
from fccl.records.run import ClientStatus
from fccl.specs import PHASES, ModelSpec, Phase, TrainSpec

Statuses = list[ClientStatus]
each_phase = pytest.mark.parametrize("phase", PHASES)


@dataclass(frozen=True)
class Subject:
    """A learner under test and the work that it is given.

    `make` builds one whose clients train so many directions (`()`: as many as the federation's LoRA). `start` is an
    adapter that it can train from, `other` one of the same form; `shard` holds examples of both phases. `diverging` is
    training that cannot end well, None where the learner has nothing that diverges.

    The last three say what is tested. `lora`: frozen factors and lower ranks are honoured. `measures`: the losses are
    those of a model, with DPO's in the preference phase, and the task's learning rate is the learner's. `corrects`: it
    makes control variates; one that does not refuses a task with corrections.
    """

    make: Callable[[Sequence[int]], Learner]
    model: ModelSpec
    train: TrainSpec
    start: Adapter
    other: Adapter
    shard: ClientShard
    diverging: TrainSpec | None = None
    lora: bool = True
    measures: bool = True
    corrects: bool = True

    def task(self, phase: Phase = "sft", **changes: Any) -> FitTask:
        """A task of this phase; `changes` are fields of it."""
        reference = self.start if phases.takes_reference(phase, self.train.preference) else None
        task = FitTask("contract", 3, phase, self.start, reference, self.model, self.train, seed=11)
        return replace(task, **changes)

    def train_with(self, **changes: Any) -> TrainSpec:
        """The training settings with changes."""
        return self.train.model_copy(update=changes)

    def fit(self, task: FitTask, *, learner: Learner | None = None, client_id: int = 0) -> ClientUpdate:
        """The update of one client, by a new learner unless one is given."""
        shard = replace(self.shard, client_id=client_id)
        return (learner or self.make(())).fit(task, shard, lambda status: None)


@dataclass(frozen=True)
class SameForAll:
    """Corrections that are the same for every client."""

    correction: Adapter

    def __call__(self, client_id: int) -> Adapter:
        return self.correction

    def of(self, client_id: int) -> Adapter:
        """The correction of a client."""
        return self.correction


class LearnerContract:
    """Subclass it, name the subclass `Test…`, and give it a fixture `subject`."""

    @pytest.fixture
    def subject(self) -> Subject:
        raise NotImplementedError("a subclass gives the learner that is tested")

    @each_phase
    def test_the_update_answers_the_task(self, subject: Subject, phase: Phase) -> None:
        task = subject.task(phase)
        update = subject.fit(task, client_id=2)
        update.require_answers(task)
        assert update.client_id == 2
        assert update.control is None

    @each_phase
    def test_it_reports_its_samples_its_loss_and_its_work(self, subject: Subject, phase: Phase) -> None:
        update = subject.fit(subject.task(phase))
        assert update.contribution.num_samples == len(subject.shard.of(phase))
        assert math.isfinite(update.contribution.avg_loss)
        assert update.contribution.seconds >= 0
        assert min(update.report.steps, update.report.tokens) > 0

    @each_phase
    def test_training_moves_the_adapter(self, subject: Subject, phase: Phase) -> None:
        assert subject.fit(subject.task(phase)).adapter.load().distance(subject.start) > 0

    @each_phase
    def test_the_same_task_gives_the_same_bytes(self, subject: Subject, phase: Phase) -> None:
        """By the same learner, by another one, and whatever was done or drawn in between."""
        learner, task = subject.make(()), subject.task(phase)
        first = subject.fit(task, learner=learner)
        subject.fit(subject.task(round=9, adapter=subject.other), learner=learner, client_id=1)
        torch.rand(7)
        again, fresh = subject.fit(task, learner=learner), subject.fit(task)
        assert len({update.adapter.load().to_bytes() for update in (first, again, fresh)}) == 1
        assert first.contribution.avg_loss == again.contribution.avg_loss == fresh.contribution.avg_loss

    @each_phase
    def test_the_draws_of_clients_and_rounds_differ(self, subject: Subject, phase: Phase) -> None:
        updates = [
            subject.fit(subject.task(phase, round=number), client_id=client)
            for client, number in ((0, 3), (1, 3), (0, 4))
        ]
        assert len({update.adapter.load().sha256 for update in updates}) == len(updates)

    @each_phase
    def test_neither_adapter_of_the_task_is_changed(self, subject: Subject, phase: Phase) -> None:
        task, before = subject.task(phase), subject.start.to_bytes()
        subject.fit(task)
        assert task.adapter.to_bytes() == before
        assert task.reference is None or task.reference.to_bytes() == before

    @each_phase
    def test_its_heartbeats_begin_with_training_and_end_with_done(self, subject: Subject, phase: Phase) -> None:
        heard: Statuses = []
        task = subject.task(phase)
        subject.make(()).fit(task, replace(subject.shard, client_id=1), heard.append)
        states = [status.state for status in heard]
        assert states == ["training"] * (len(states) - 1) + ["done"]
        assert len(states) > 1
        assert {(each.client_id, each.run_id, each.round, each.phase) for each in heard} == {(1, "contract", 3, phase)}

    def test_the_preference_loss_is_measured_against_the_reference(self, subject: Subject) -> None:
        """It starts at log 2 where the reference is the adapter, and elsewhere where it is another."""
        _needs(subject.measures, "losses of a model")
        same, other = (
            subject.fit(subject.task("va", reference=reference)).report.first_loss
            for reference in (subject.start, subject.other)
        )
        assert same == pytest.approx(math.log(2), rel=1e-4)
        assert other is not None
        assert abs(other - math.log(2)) > 1e-4

    @each_phase
    def test_training_starts_from_the_tasks_adapter(self, subject: Subject, phase: Phase) -> None:
        """With a learning rate that moves nothing the update is the adapter, whatever the reference."""
        _needs(subject.measures, "steps of a learning rate")
        reference = subject.other if phases.takes_reference(phase, subject.train.preference) else None
        still = subject.task(phase, reference=reference, train=subject.train_with(learning_rate=1e-12, epochs=1))
        assert subject.fit(still).adapter.load().distance(subject.start) < 1e-6

    def test_divergence_is_an_error_of_ours(self, subject: Subject) -> None:
        _needs(subject.diverging is not None, "training that diverges")
        with pytest.raises(FcclError):
            subject.fit(subject.task(train=subject.diverging))

    @each_phase
    def test_a_correction_of_zero_changes_nothing_and_brings_a_control(self, subject: Subject, phase: Phase) -> None:
        _needs(subject.corrects, "control variates")
        task = subject.task(phase, corrections=SameForAll(_scaled(subject.start, 0.0)))
        update = subject.fit(task)
        update.require_answers(task)
        assert update.adapter.load().sha256 == subject.fit(subject.task(phase)).adapter.load().sha256
        assert update.control is not None
        assert any(bool(tensor.any()) for tensor in update.control.load().tensors.values())

    @each_phase
    def test_a_correction_moves_the_update(self, subject: Subject, phase: Phase) -> None:
        _needs(subject.corrects, "control variates")
        corrected = subject.task(phase, corrections=SameForAll(subject.other))
        assert subject.fit(corrected).adapter.load().sha256 != subject.fit(subject.task(phase)).adapter.load().sha256

    @each_phase
    def test_without_control_variates_a_correction_is_refused(self, subject: Subject, phase: Phase) -> None:
        """Else a server would add an update up that SCAFFOLD's clients do not send."""
        if subject.corrects:
            pytest.skip("this learner has control variates")
        with pytest.raises(FcclError):
            subject.fit(subject.task(phase, corrections=SameForAll(subject.other)))

    @each_phase
    def test_with_freeze_a_the_factors_a_stay_to_the_bit(self, subject: Subject, phase: Phase) -> None:
        _needs(subject.lora, "LoRA factors")
        task = subject.task(phase, train=subject.train_with(freeze_a=True))
        for name, tensor in subject.fit(task).adapter.load().tensors.items():
            assert torch.equal(tensor, subject.start.tensors[name]) == (".lora_A." in name), name

    @each_phase
    def test_a_client_of_lower_rank_trains_the_leading_directions(self, subject: Subject, phase: Phase) -> None:
        _needs(subject.lora, "LoRA factors")
        task = subject.task(phase, train=subject.train_with(lower_ranks=True))
        rank = rank_of(subject.start.form) - 1
        update = subject.fit(task, learner=subject.make((rank,)))
        update.require_answers(task)
        assert update.adapter.form == of_rank(subject.start.form, rank)

    def test_a_rank_that_the_task_does_not_allow_is_an_error_of_ours(self, subject: Subject) -> None:
        _needs(subject.lora, "LoRA factors")
        learner = subject.make((rank_of(subject.start.form) - 1,))
        with pytest.raises(FcclError, match="LORA_R"):
            subject.fit(subject.task(), learner=learner)


def _needs(there: bool, what: str) -> None:
    if not there:
        pytest.skip(f"this learner has no {what}")


def _scaled(adapter: Adapter, factor: float) -> Adapter:
    return Adapter({name: factor * tensor for name, tensor in adapter.tensors.items()})
