"""Client by client: whose update helps on whose held-out examples, where the clients' data is here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from fccl.data.shards import ClientShard, load_shard
from fccl.errors import DataError
from fccl.evaluation.validation import Validator
from fccl.federation.kept_rounds import kept_round, kept_rounds
from fccl.federation.matrix import helps_whom
from fccl.library.past_run import AtWork
from fccl.paths import AfterPaths
from fccl.records.after import ClientMatrix, HelpsWhom
from fccl.specs import PHASES, Phase
from fccl.storage.files import write_text


def client_matrix(work: AtWork) -> ClientMatrix:
    """The matrix of every phase that has kept rounds, on the examples that clients keep apart for their own tests.

    Raises `DataError` where no client keeps any, or their data is not here; `FederationError` where nothing is kept.
    """
    work.require_updates()
    if work.manifest.spec.server_only or not any(sum(counts) for counts in work.manifest.kept_apart.values()):
        raise DataError(
            "no client's held-out examples are here", hint="prepare data with --client-test-share 0.1, and run with it"
        )
    shards = [load_shard(work.data, client, work.manifest) for client in range(work.past.settings.num_clients)]
    found = (matrix_of(work, phase, shards) for phase in PHASES)
    phases = tuple(each for each in found if each is not None)
    return ClientMatrix(run_id=work.past.info.run_id, time=time.time(), phases=phases)


def matrix_of(work: AtWork, phase: Phase, shards: Sequence[ClientShard]) -> HelpsWhom | None:
    """The matrix of one phase; None without kept rounds or examples of it."""
    owners = [shard.client_id for shard in shards for _ in shard.tests_of(phase)]
    sft = [example for shard in shards for example in shard.test_sft]
    va = [example for shard in shards for example in shard.test_va]
    settings, preference = work.settings, work.settings.train_spec("va").preference
    batch = settings.eval_batch_size
    held = Validator(work.model, sft, va, preference=preference, batch_size=batch, threads=settings.threads)
    rounds = (kept_round(work.past.logs, number) for number in kept_rounds(work.past.logs))
    return helps_whom(rounds, phase, owners, partial(held.by_example, phase))


def write_matrix(after: AfterPaths, found: ClientMatrix) -> Path:
    """Write the matrix, in the place of what was written before. Returns the file. Raises `StorageError`."""
    write_text(after.matrix, found.model_dump_json(indent=2) + "\n")
    return after.matrix
