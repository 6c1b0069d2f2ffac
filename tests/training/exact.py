"""Seven instructions and pairs of unlike lengths, and adapters, for models in float64."""

import torch

from fccl.adapters.adapter import Adapter
from fccl.data.examples import PreferencePair, SftExample

SFT = tuple(SftExample(f"What is {n}?", "It is " + "and so " * n + "on." * (n != 2)) for n in range(7))
VA = tuple(PreferencePair(f"What is {n}?", "It is " + "and so " * n + "on.", "Go away. " * (7 - n)) for n in range(7))
EXAMPLES = {"sft": SFT, "va": VA}


def random_adapter(form, seed):
    draw = torch.Generator().manual_seed(seed)
    return Adapter({name: 0.1 * torch.randn(shape, generator=draw) for name, shape in form.shapes.items()})
