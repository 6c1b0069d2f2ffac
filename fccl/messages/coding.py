"""Updates as they travel: coded where the task asks for it, with what a codec left out remembered for the next round.

`coded` stands between a learner and every transport. Rounding draws from (SEED, phase, round, client), so an answer
that is given again has the same bytes. What int3 and topk leave out is kept by run, phase and round. The residual of a
round is on the disk before its answer is committed, and a round that is done again begins from the residual before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

from fccl.adapters.adapter import Adapter, load_adapter
from fccl.adapters.coded import CodedAdapter
from fccl.adapters.ranks import leading, rank_of
from fccl.messages.fit import ClientUpdate, FitTask
from fccl.paths import ResidualPaths, run_digits
from fccl.specs import named_seed
from fccl.storage.private import private_folder
from fccl.storage.temporary import sweep

KEPT = 2  # rounds whose residuals stay: the last one, and the one that it began from


class Residuals(Protocol):
    """The changes that clients have left out of their updates so far, of one adapter's form each."""

    def before(self, task: FitTask, client_id: int) -> Adapter | None:
        """The residual of the client's newest round before this one, in the same run and phase; None at its start."""
        ...

    def keep(self, task: FitTask, client_id: int, residual: Adapter) -> None:
        """Remember the residual of this round, beside the one before it. Raises `StorageError`."""
        ...


@dataclass
class ResidualsInMemory:
    """Those of clients that live no longer than their process."""

    _found: dict[tuple[str, str, int], dict[int, Adapter]] = field(default_factory=dict)

    def before(self, task: FitTask, client_id: int) -> Adapter | None:
        """As the protocol says."""
        kept = self._of(task, client_id)
        return kept[max(earlier)] if (earlier := [number for number in kept if number < task.round]) else None

    def keep(self, task: FitTask, client_id: int, residual: Adapter) -> None:
        """As the protocol says."""
        kept = self._of(task, client_id)
        kept[task.round] = residual
        for number in outlived(kept, task.round):
            del kept[number]

    def _of(self, task: FitTask, client_id: int) -> dict[int, Adapter]:
        return self._found.setdefault((task.run_id, task.phase, client_id), {})


@dataclass(frozen=True)
class ResidualsInFolders:
    """Those of clients that may be killed: each client's in a private folder, in files that are written whole. `tell`
    hears of a client that has none of a run after its first round: it is new there, or its folder was deleted.
    """

    folder: Callable[[int], ResidualPaths]
    tell: Callable[[str], None] = lambda line: None

    def before(self, task: FitTask, client_id: int) -> Adapter | None:
        """As the protocol says. Raises `AdapterError` when the file is damaged."""
        paths, run = self.folder(client_id), run_digits(task.run_id)
        earlier = [number for number in paths.rounds(run, task.phase) if number < task.round]
        if task.round and not paths.of_run(run):
            self.tell(
                f"{paths.root}/ has nothing that earlier updates of client {client_id} left out "
                f"({task.train.codec.name}): it begins without, as in its first round"
            )
        return load_adapter(paths.adapter(run, task.phase, max(earlier))) if earlier else None

    def keep(self, task: FitTask, client_id: int, residual: Adapter) -> None:
        """As the protocol says. Those of other runs go."""
        paths, run = self.folder(client_id), run_digits(task.run_id)
        private_folder(paths.root)
        sweep(paths.root)  # what a killed process has left half-written
        residual.save(paths.adapter(run, task.phase, task.round))
        old = {paths.adapter(run, task.phase, number) for number in outlived(paths.rounds(run, task.phase), task.round)}
        for path in old | set(paths.of_other_runs(run)):
            path.unlink(missing_ok=True)


def coded(task: FitTask, update: ClientUpdate, residuals: Residuals) -> ClientUpdate:
    """The update as its task wants it sent: as it is under fp32, else with its change in the task's codec.

    Raises `AdapterError` where the update does not fit the task, `StorageError` where the residual cannot be kept.
    """
    spec, client_id = task.train.codec, update.client_id
    if spec.is_whole:
        return update
    adapter = update.adapter.load()
    base = leading(task.adapter, rank_of(adapter.form))
    earlier = residuals.before(task, client_id) if spec.remembers else None
    wanted = adapter if earlier is None else _moved(adapter, earlier, 1)
    sent = CodedAdapter.of(wanted, base, spec, named_seed(task.seed, "codec", task.phase, task.round, client_id))
    if spec.remembers:
        residuals.keep(task, client_id, _moved(wanted, sent.load(), -1))
    return replace(update, adapter=sent, sent=len(sent.content))


def _moved(adapter: Adapter, other: Adapter, times: int) -> Adapter:
    """adapter + times · other, in float32."""
    adapter.require_same_form(other)
    return Adapter.of_vector(adapter.vector + times * other.vector, adapter.form)


def outlived(rounds: Iterable[int], number: int) -> list[int]:
    """The rounds whose residuals, or personal adapters, nobody asks for once that of `number` is there. Later ones are
    of a run that has gone back since.
    """
    known = sorted(rounds)
    stays = [each for each in known if each <= number][-KEPT:]
    return [each for each in known if each not in stays]
