"""`fccl forget`: a finished run trained anew without a client, held against a run that never had it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fccl.adapters.adapter import Adapter, load_adapter
from fccl.data.shards import load_shard
from fccl.evaluation.validation import Validator
from fccl.federation import forget
from fccl.federation.replay import ReplayedRun
from fccl.federation.state import RoundResult
from fccl.library.answers import require_clients
from fccl.library.export import write_adapter
from fccl.library.narrow import plan_as_it_went
from fccl.library.past_run import AtWork
from fccl.phases import takes_reference
from fccl.records.after import Forgotten, WhatIsLeft
from fccl.specs import PHASES, Phase
from fccl.storage.files import new_folder, replace_folder, write_text
from fccl.storage.reading import read_value

THE_RUN, WITHOUT, NEVER = "the run", "without the client", "never had it"
Heard = Callable[[str, RoundResult], None]  # the model that is trained, a round of it


@dataclass(frozen=True, eq=False)
class Forgetting:
    """A client to be taken out of a run. Raises `FederationError` in `first` when no update of it is there."""

    work: AtWork
    client_id: int

    def __post_init__(self) -> None:
        require_clients(self.work, [self.client_id])
        forget.require_own(self.work.past.logs, self.client_id)

    @property
    def first(self) -> int:
        """The round of its first update."""
        return forget.first_update(self.work.past.logs, self.client_id)

    @property
    def files(self) -> list[Path]:
        """The client's own files in the run's folder: those that `write` removes."""
        return forget.files_of(self.work.past.logs, self.client_id)

    def prediction(self) -> float:
        """Seconds that the training takes, by what the run's rounds took."""
        return forget.predicted_seconds(self.work.past.logs, self.client_id, self.first)

    def run(self, heard: Heard = lambda model, result: None) -> tuple[Forgotten, Adapter]:
        """Train, measure, and remove nothing yet. Returns the record and the adapter without the client.

        Raises `DataError` where the clients' data is not here.
        """
        logs, started = self.work.past.logs, time.monotonic()
        without = self._trained(self.first, WITHOUT, heard)
        never = self._trained(0, NEVER, heard) if self.first else without
        models = {THE_RUN: load_adapter(logs.global_final), WITHOUT: without} | ({NEVER: never} if self.first else {})
        record = Forgotten(
            run_id=self.work.past.info.run_id,
            time=time.time(),
            client_id=self.client_id,
            first_round=self.first,
            seconds=time.monotonic() - started,
            says=f"{forget.EXACT} {forget.BESIDE if self.first else forget.SAME}",
            adapter_sha256=without.sha256,
            never_sha256=never.sha256,
            left=tuple(self._left(models)),
            removed=tuple(dict.fromkeys((*self._removed_before(), *forget.names_of(logs, self.files)))),
            still=forget.names_of(logs, forget.made_with(logs, self.first)),
        )
        return record, without

    def _removed_before(self) -> tuple[str, ...]:
        """The files that an earlier call has removed: the run's check must still know of them."""
        after = self.work.past.after
        earlier = read_value(after.record(after.forgotten(self.client_id)), Forgotten)
        return earlier.removed if earlier else ()

    def write(self, record: Forgotten, adapter: Adapter) -> None:
        """Write the adapter, in PEFT's format too, and last the record; then remove the client's files.

        Raises `FederationError` while another process is at work in the run's folder, `StorageError`.
        """
        past, work = self.work.past, self.work
        folder, plan = past.after.forgotten(self.client_id), plan_as_it_went(past.settings, past.folder)
        with new_folder(folder) as new:
            adapter.save(past.after.final(new))
            write_adapter(past.settings, plan, work.model, work.manifest, adapter, new / "adapter", False)
            write_text(past.after.record(new), record.model_dump_json(indent=2) + "\n")
            replace_folder(new, folder)
        with past.folder.held(past.info):
            forget.remove([past.logs.root / name for name in record.removed])

    def _trained(self, first: int, model: str, heard: Heard) -> Adapter:
        """The final adapter of the run with all rounds from `first` on trained anew without the client."""
        without = frozenset({self.client_id})
        again = self.work.replayed(without, retrain_from=first, from_there=True)
        return last_of(again, lambda result: heard(model, result))

    def _left(self, models: dict[str, Adapter]) -> Iterator[WhatIsLeft]:
        """The client's own training examples under each model; pairs against the run's reference policy."""
        for phase in PHASES:
            if (validate := self._on_shard(phase)) is None:
                continue
            for name, adapter in models.items():
                found = validate(phase, adapter, self._reference(phase))
                yield WhatIsLeft(model=name, phase=phase, examples=found.examples, loss=found.loss)

    def _on_shard(self, phase: Phase) -> Validator | None:
        """Scores adapters on the client's examples; None where it has none of this kind."""
        work, settings = self.work, self.work.settings
        shard = load_shard(work.data, self.client_id, work.manifest)
        if not shard.of(phase):
            return None
        preference = settings.train_spec("va").preference
        how = {"batch_size": settings.eval_batch_size, "threads": settings.threads}
        return Validator(work.model, shard.sft, shard.va, preference=preference, **how)

    def _reference(self, phase: Phase) -> Adapter | None:
        taken = takes_reference(phase, self.work.settings.train_spec("va").preference)
        return load_adapter(self.work.past.logs.reference) if taken else None


def last_of(again: ReplayedRun, heard: Callable[[RoundResult], None]) -> Adapter:
    """The result of the last round. Raises as `ReplayedRun.rounds` does."""
    result = None
    for result in again.rounds():
        heard(result)
    assert result is not None  # `numbers` has raised where there is no round
    return result.state.result
