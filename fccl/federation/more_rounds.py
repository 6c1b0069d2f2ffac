"""Other numbers of rounds for a run that is here already: what may be asked, and the change on the disk.

More VA rounds go on from the last one, to the bytes of one longer run. More SFT rounds go back to the state after the
last SFT round; the VA rounds that were done are kept in `runs/` and done anew. In the order in which the files change,
`state.json` comes before `run.json`: a command that was killed in between is simply given again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fccl.adapters.adapter import adapter_file, load_adapter
from fccl.display.words import are
from fccl.errors import FederationError, SettingsError
from fccl.paths import LogPaths, of_earlier_versions
from fccl.records.run import RunInfo, RunState
from fccl.specs import PHASES, Phase, RoundPlan
from fccl.storage.files import new_folder, storage_errors, sync_folder, write_text
from fccl.storage.reading import read_value

ROUNDS = ("fed_rounds", "sft_rounds", "va_rounds")  # the settings that a resumed run may be told anew
_NOT_COPIED = frozenset({"received", "residuals", "tensorboard", "wandb_written.json"})


@dataclass(frozen=True)
class OtherRounds:
    """A run's state, the plan that it was begun with or last told, and the one that it is told now."""

    paths: LogPaths
    state: RunState
    before: RoundPlan
    plan: RoundPlan

    @property
    def is_change(self) -> bool:
        """Whether any phase has another number of rounds now, or the state, of a command that was killed, has others
        still.
        """
        went = self._went
        here = self.state.first_va, self.state.total_rounds
        return self.is_asked or here != (went.first_round("va"), went.total_rounds)

    @property
    def is_asked(self) -> bool:
        """Whether the plan has another number of rounds for any phase."""
        return any(self.before.rounds_of(phase) != self.plan.rounds_of(phase) for phase in PHASES)

    @property
    def goes_back(self) -> bool:
        """Whether VA rounds were done that come before the new SFT rounds."""
        return self._went.rounds_of("sft") > self._done("sft") and self._done("va") > 0

    @property
    def _went(self) -> RoundPlan:
        return self.plan.as_it_went(self.state.early)

    def require_possible(self, redo_va: bool) -> None:
        """Raises `SettingsError` for rounds that are fewer than are done, that change nothing, or that would have VA
        done anew without `redo_va`; `FederationError` when the state to go back to is not there.
        """
        for phase in PHASES:
            self._require_phase(phase)
        if redo_va and self.is_asked and not self._went.rounds_of("sft") > self._done("sft"):
            raise SettingsError(
                "--redo-va has no effect without more SFT rounds",
                hint="leave it out, or say how many with --sft-rounds",
            )
        if self.goes_back and not redo_va:
            raise SettingsError(
                f"{self._named('sft')}={self.plan.rounds_of('sft')}: {are(self._done('va'), 'VA round')} done, and "
                "more SFT rounds come before them",
                hint="--redo-va does them anew after the last SFT round, and keeps those that are done in runs/; "
                "--va-rounds alone adds VA rounds after the last",
            )
        if self.goes_back and self._after_sft() is None:
            raise FederationError(
                f"{self.paths.state_sft} is not there: the state after the last SFT round, from which to go on",
                hint="runs of earlier versions have none; begin another run with --start-from global_sft.safetensors",
            )

    def _require_phase(self, phase: Phase) -> None:
        now, done, name = self.plan.rounds_of(phase), self._done(phase), self._named(phase)
        if phase == "va" and self.goes_back:
            return
        if phase in self.state.early and now != self.before.rounds_of(phase):
            raise SettingsError(
                f"{name}={now}: PATIENCE has ended this phase after {done} rounds, so another number changes nothing",
                hint="begin another run with --start-from the adapter to go on from",
            )
        if now < done:
            raise SettingsError(
                f"{name}={now}: {done} of these rounds are done already",
                hint=f"name at least {done}, or begin another run",
            )

    def _named(self, phase: Phase) -> str:
        """The setting that says how many rounds the phase has."""
        own = {"sft": self.plan.sft_rounds, "va": self.plan.va_rounds}[phase]
        return "FED_ROUNDS" if own is None else f"{phase.upper()}_ROUNDS"

    def _done(self, phase: Phase) -> int:
        """The rounds of a phase that are complete."""
        first_va, complete = self.state.first_va, self.state.next_round
        return min(first_va, complete) if phase == "sft" else max(0, complete - first_va)

    def _after_sft(self) -> RunState | None:
        found = read_value(self.paths.state_sft, RunState)
        return found if found is not None and found.run_id == self.state.run_id else None

    def lines(self) -> list[str]:
        """Lines that a person should read before the run goes on."""
        if not self.is_asked:
            return []
        said = [f"The run has {_words(self.plan)} rounds from now on; it had {_words(self.before)}."]
        if any(map(self._goes_on, PHASES)) and self.plan.lr_schedule != "constant":
            said.append(
                f"ROUND_LR_SCHEDULE={self.plan.lr_schedule} goes over the planned rounds, and those that are done were "
                "trained for another number: the result is not that of a run that had these rounds from its start."
            )
        return said

    def _goes_on(self, phase: Phase) -> bool:
        """Whether the phase has rounds that stay, and another number of them from now on."""
        changed = self.plan.rounds_of(phase) != self.before.rounds_of(phase)
        return changed and self._done(phase) > 0 and not (phase == "va" and self.goes_back)

    def apply(self, info: RunInfo, settings: Mapping[str, str]) -> None:
        """Change the run on the disk: the earlier end kept in `runs/`, the state, the settings of its record.

        Raises `StorageError`. What an earlier end has left is cleared away by `clear_end`.
        """
        if self.goes_back or (self.state.finished and adapter_file(self.paths.global_final).is_file()):
            keep_end(self.paths, self.state, self.goes_back)
        state = self._state_now()
        if state.next_round == state.first_va:  # SFT is over here, though it was not when the round was committed
            best = state.watch.best_round if state.watch else None
            adapter = load_adapter(self.paths.global_adapter(state.next_round if best is None else best + 1))
            adapter.save(self.paths.global_sft if state.next_round else self.paths.start)
            write_text(self.paths.state_sft, state.model_dump_json() + "\n")
        write_text(self.paths.state, state.model_dump_json() + "\n")
        told = {name: settings[name] for name in ROUNDS if name in settings}
        changed = info.model_copy(update={"settings": {**info.settings, **told}})
        write_text(self.paths.run, changed.model_dump_json(indent=2) + "\n")

    def _state_now(self) -> RunState:
        """The state that the run goes on from."""
        found = self._after_sft() if self.goes_back else None
        state = self.state if found is None else found
        went = self.plan.as_it_went(state.early)
        return state.model_copy(
            update={
                "total_rounds": went.total_rounds,
                "sft_rounds": went.rounds_of("sft"),
                "reference_sha256": _reference(state, went),
            }
        )


def _words(plan: RoundPlan) -> str:
    return " and ".join(f"{plan.rounds_of(phase)} {phase.upper()}" for phase in PHASES)


def _reference(state: RunState, plan: RoundPlan) -> str:
    """The hash of the reference of a run that has this plan from now on; empty while it has none."""
    if state.next_round < plan.first_round("va") or state.next_round == 0:
        return ""
    best = state.watch.best_sha256 if state.watch else ""
    return state.reference_sha256 or best or state.adapter_sha256


def keep_end(paths: LogPaths, state: RunState, with_updates: bool) -> None:
    """Copy the run as it is to `runs/<run id>-<rounds>-<hash>`, so that what is done anew or written over is not lost.
    The kept updates are copied where rounds are done anew.

    There already, it was copied by a command that was killed. Raises `StorageError`.
    """
    folder = paths.archive / f"{state.run_id}-{state.next_round}-{state.adapter_sha256[:8]}"
    left = _NOT_COPIED if with_updates else {*_NOT_COPIED, paths.kept.name}
    if folder.exists():
        return
    with new_folder(folder) as new, storage_errors(folder):
        for entry in paths.own_entries():
            if entry.is_dir() and entry.name not in left:
                shutil.copytree(entry, new / entry.name, copy_function=_same if entry == paths.kept else shutil.copy2)
            elif entry.name not in left:
                shutil.copy2(entry, new / entry.name)
        os.rename(new, folder)
    sync_folder(folder.parent)


def clear_end(paths: LogPaths, state: RunState) -> None:
    """Remove the results of an end that the run has gone on from, and of a phase that is open again.

    The final adapter goes last: while it is there, the rest may be.
    """
    if state.finished:
        return
    again = [paths.global_sft, of_earlier_versions(paths.global_sft)] if state.next_round < state.first_va else []
    if state.next_round <= state.first_va:
        again.extend(paths.client_adapter(0, "va").parent.glob("client_*_va.*"))
    final = adapter_file(paths.global_final)
    ends = [paths.seal, paths.evaluation_json, paths.evaluation_markdown, paths.report] if final.is_file() else []
    with storage_errors(paths.root):
        for path in (*again, *ends):
            path.unlink(missing_ok=True)
        if ends:
            shutil.rmtree(paths.adapter, ignore_errors=True)
            final.unlink()


def _same(source: str, target: str) -> str:
    """Another name of a file that nobody writes to again, or its copy where there are no such names."""
    with suppress(OSError):
        os.link(source, target)
        return target
    return str(shutil.copy2(Path(source), target))
