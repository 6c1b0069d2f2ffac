"""A step that a CUDA graph can record: the same buffers, no shape from a value, nothing read back."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fccl.model.buckets import Buckets, Size, own_size
from fccl.model.gpt2_clients import ClientFactors, gpt2_with
from fccl.training.clients_step import ClientsStep, clients_batch
from fccl.training.recorded import CudaGraphs, eager
from tests.training.test_clients_training import SPEC, correction, model_of, objectives

READ_BACK = ("_local_scalar_dense", "is_nonzero", "equal", "item")
SHAPED_BY_VALUES = ("nonzero", "masked_select", "unique", "repeat_interleave", "bincount", "_unique2")
FROM_THE_HOST = ("lift_fresh",)  # a number that is copied to the device; scalar_tensor is filled in there


class Recordable(TorchDispatchMode):
    """Refuses what the recording of a CUDA graph refuses, or would repeat with old numbers."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function).removeprefix("aten.")
        self.seen.append(name)
        if name.startswith((*READ_BACK, *SHAPED_BY_VALUES, *FROM_THE_HOST)):
            raise AssertionError(f"{name} cannot be recorded")
        indices = args[1] if name.startswith(("index.", "index_put")) else ()
        if any(index is not None and index.dtype == torch.bool for index in indices):
            raise AssertionError(f"{name} by a mask has a shape that depends on values")
        return function(*args, **(kwargs or {}))


def step_of(model, losses, spec=SPEC, corrected=False):
    factors = ClientFactors.of(model.factors, len(losses))
    step = ClientsStep(gpt2_with(model, factors), factors, spec, losses[0], corrected)
    step.begin(model.factors, [correction(model, client) for client in range(len(losses))] if corrected else ())
    step.optimiser.rate.fill_(1e-3)
    step.optimiser.active.fill_(True)
    return step


def batch_of(step, losses, first=0, sizing=own_size):
    chosen = {client: (objective, range(first, first + 2)) for client, objective in enumerate(losses)}
    return clients_batch(chosen, step.factors, sizing)


def one_size(packed):
    """For any batch of these tests."""
    return Size(tokens=512, predicted=448, prompts=16, longest=80, responses=14)


def state(step):
    """All that stays from one step to the next."""
    return {
        name: value
        for owner in (step, step.optimiser, step.factors)
        for name, value in vars(owner).items()
        if isinstance(value, torch.Tensor)
    }


CASES = [("sft", {}, False), ("va", {}, False), ("sft", {"prox_mu": 0.5, "freeze_a": True}, True)]


@pytest.mark.parametrize(("phase", "changes", "corrected"), CASES)
def test_a_step_reads_nothing_back_and_has_no_shape_from_a_value(tiny_model_path, phase, changes, corrected):
    model = model_of(tiny_model_path, torch.float32)
    losses = objectives(model, phase)
    step = step_of(model, losses, SPEC.model_copy(update=changes), corrected)
    batch = batch_of(step, losses, sizing=Buckets(9, 2))
    with Recordable() as mode:
        step(batch)
    assert "addmm_.default" in mode.seen
    for spoilt in (lambda: step.loss[0].item(), lambda: step.loss[step.optimiser.active], lambda: step.loss.nonzero()):
        with pytest.raises(AssertionError, match=r"recorded|depends"), Recordable():
            spoilt()


@pytest.mark.parametrize(("phase", "changes", "corrected"), CASES)
def test_state_and_inputs_stay_where_they_are(tiny_model_path, phase, changes, corrected):
    model = model_of(tiny_model_path)
    losses = objectives(model, phase)
    step = step_of(model, losses, SPEC.model_copy(update=changes), corrected)
    buffers, other = (batch_of(step, losses, first, one_size) for first in (0, 2))
    step(buffers)
    places = {name: value.data_ptr() for name, value in state(step).items()}
    inputs = {name: value.data_ptr() for name, value in vars(buffers.packed).items() if hasattr(value, "data_ptr")}
    before = step.factors.values.clone()
    buffers.fill(other)
    step(buffers)
    assert {name: value.data_ptr() for name, value in state(step).items()} == places
    assert {name: getattr(buffers.packed, name).data_ptr() for name in inputs} == inputs
    assert not torch.equal(step.factors.values, before)


@pytest.mark.parametrize("phase", ["sft", "va"])
def test_a_step_at_a_bucket_is_the_step_without_padding(tiny_model_path, phase):
    model = model_of(tiny_model_path)
    losses, found = objectives(model, phase), []
    for sizing in (own_size, Buckets(6, 2)):
        step = step_of(model, losses)
        for first in (0, 2):
            step(batch_of(step, losses, first, sizing))
        found.append((step.factors.gradient, step.factors.values, step.loss, step.optimiser.norm))
    for mine, theirs in zip(*found, strict=True):
        assert float((mine - theirs).norm() / theirs.norm()) < 1e-12


@pytest.mark.parametrize(("phase", "changes", "corrected"), CASES)
def test_a_step_of_nobody_changes_nothing(tiny_model_path, phase, changes, corrected):
    """So a recorder may do it as often as it likes."""
    model = model_of(tiny_model_path)
    losses = objectives(model, phase)
    step = step_of(model, losses, SPEC.model_copy(update=changes), corrected)
    batch = batch_of(step, losses)
    step(batch)
    of_a_step = {"gradient", "loss", "norm", "moved"}  # written anew by each
    before = {name: value.clone() for name, value in state(step).items() if name not in of_a_step}
    step.paused(lambda: [step(batch) for _ in range(3)])
    after = state(step)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert bool(step.optimiser.active.all())


def test_a_client_that_is_not_active_stays_where_it_is(tiny_model_path):
    model = model_of(tiny_model_path)
    losses = objectives(model, "sft")
    step = step_of(model, losses)
    step(batch_of(step, losses))
    step.optimiser.active[1] = False
    before = [
        {name: part.clone() for name, part in step.factors.of_client(step.factors.values, client).items()}
        for client in range(3)
    ]
    step(batch_of(step, losses, 2))
    still = [
        all(torch.equal(part, before[client][name]) for name, part in own.items())
        for client, own in enumerate(step.factors.of_client(step.factors.values, client) for client in range(3))
    ]
    assert still == [False, True, False]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("phase", ["sft", "va"])
def test_a_recorded_step_is_the_step(tiny_model_path, phase):
    model = model_of(tiny_model_path, torch.float32)
    losses = objectives(model, phase)

    def learned(record):
        step, made = step_of(model, losses), []
        buffers = batch_of(step, losses, sizing=one_size).to(model.device)
        step.paused(lambda: made.append(record(lambda: step(buffers))))
        for first in (0, 2):
            buffers.fill(batch_of(step, losses, first, one_size))
            made[0]()
        return step.factors.values

    torch.testing.assert_close(learned(CudaGraphs()), learned(eager), rtol=1e-5, atol=1e-7)
