"""The global adapter of a round from its few bytes, at a client that has the adapter before it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from fccl.adapters.adapter import Adapter
from fccl.adapters.short import read_short
from fccl.errors import AdapterError, UpdateRejected
from fccl.paths import ExchangePaths
from fccl.transports.exchange.answers import read_named
from fccl.transports.exchange.wire import AdapterFile, FitWork, TaskFile


def adapter_in_few_bytes(
    paths: ExchangePaths, task: TaskFile, work: FitWork, held: Iterable[Adapter]
) -> Adapter | None:
    """The adapter that the task names, to the byte, made of `global_round_R.coded` and one of those that are held.

    None where the round has no such file, where it is damaged or of another adapter, and where its base is not held:
    then the whole file is read. That has to lie there with its length, so that no more memory is taken than it would.
    """
    if work.coded is None:
        return None
    path = paths.coded_global(task.round)
    with suppress(UpdateRejected, AdapterError, OSError):
        if os.lstat(paths.global_adapter(task.round)).st_size == task.adapter.length:
            content = read_named(path, work.coded, "the task")
            found = read_short(content, held, work.train.codec, task.adapter.length, path.name)
            return found if AdapterFile.of(found.to_bytes()) == task.adapter else None
    return None
