"""The GPUs of this machine, for processes that take one each."""

from __future__ import annotations

import os

import torch

from fccl.processes.gpus import VISIBLE, gpu_names, own_gpu


def gpus_here() -> tuple[str, ...]:
    """The names of the GPUs that this process sees. CUDA is not begun by it."""
    return gpu_names(torch.cuda.device_count(), os.environ.get(VISIBLE))


def take_own_gpu(client_id: int) -> str:
    """Let this process, and those that it begins, see one GPU alone where there are several: clients of one machine
    take them in turn. Comes before anything is computed. Returns a line that says which, or nothing.
    """
    names = gpus_here()
    os.environ.update(own_gpu(client_id, names))
    return f"{VISIBLE}={os.environ[VISIBLE]}, one of {len(names)} GPUs" if len(names) > 1 else ""
