"""One GPU a process: the environment under which each of several processes sees its own alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

VISIBLE = "CUDA_VISIBLE_DEVICES"


def gpu_names(count: int, visible: str | None) -> tuple[str, ...]:
    """The names by which `CUDA_VISIBLE_DEVICES` gives a process one of the GPUs that this one sees.

    `count` is their number, `visible` what the variable says here: numbers or identifiers with commas, None if it is
    not set.

    >>> gpu_names(2, None)
    ('0', '1')
    >>> gpu_names(2, "3, GPU-8f2c")
    ('3', 'GPU-8f2c')
    """
    named = map(str, range(count)) if visible is None else map(str.strip, visible.split(","))
    return tuple(named)[:count]


def own_gpu(number: int, names: Sequence[str]) -> Mapping[str, str]:
    """The environment of process `number`: with several GPUs they are taken in turn, else nothing is said.

    >>> [own_gpu(number, ("0", "1"))[VISIBLE] for number in range(3)]
    ['0', '1', '0']
    """
    return {VISIBLE: names[number % len(names)]} if len(names) > 1 else {}
