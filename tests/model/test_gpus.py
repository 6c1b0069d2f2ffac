"""The GPU that a client's process takes on a machine with several: `device_count` stands in for the machine."""

import os

import pytest
import torch

from fccl.model.gpus import gpus_here, take_own_gpu
from fccl.processes.gpus import VISIBLE


@pytest.fixture
def gpus(monkeypatch):
    monkeypatch.setenv(VISIBLE, "")  # whatever the test sets is taken back
    monkeypatch.delenv(VISIBLE)
    return lambda count: monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(("client", "name"), [(0, "0"), (1, "1"), (2, "0"), (5, "1")])
def test_clients_of_one_machine_take_its_gpus_in_turn_and_say_which(gpus, client, name):
    gpus(2)
    assert take_own_gpu(client) == f"CUDA_VISIBLE_DEVICES={name}, one of 2 GPUs"
    assert os.environ[VISIBLE] == name


def test_gpus_that_were_named_for_this_process_are_taken_by_their_names(gpus, monkeypatch):
    gpus(2)
    monkeypatch.setenv(VISIBLE, "GPU-8f2c,7")
    take_own_gpu(3)
    assert os.environ[VISIBLE] == "7"


@pytest.mark.parametrize("count", [0, 1])
def test_with_one_gpu_or_none_nothing_changes(gpus, count):
    gpus(count)
    assert take_own_gpu(3) == ""
    assert VISIBLE not in os.environ


def test_a_machine_is_asked_without_beginning_cuda():
    assert len(gpus_here()) == torch.cuda.device_count()
    assert not torch.cuda.is_initialized()
