"""Questions after a run, from Python and for the commands: replays, influence, a check of the result."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

from fccl import phases
from fccl.adapters.adapter import Adapter, load_adapter
from fccl.contribution.protocol import LearnLoss
from fccl.contribution.reported import ContributionRule
from fccl.contribution.rules import weigher
from fccl.errors import FederationError, SettingsError
from fccl.evaluation.validation import Validator
from fccl.federation.influence import Coalitions, MeasuredLoss, influence, results_of
from fccl.federation.replay import replayable
from fccl.federation.verify import Claims, RunChecker
from fccl.federation.what_if import replay_record
from fccl.keys import read_public
from fccl.library.narrow import aggregation_rule, data_spec, plan_as_it_went
from fccl.library.past_run import AtWork, past_run
from fccl.paths import AfterPaths, KeyPaths
from fccl.records.after import Forgotten, Influence, Measure, Replay, ReplayedRound, RunCheck
from fccl.records.run import Validation
from fccl.specs import PHASES, Phase
from fccl.storage.files import new_folder, replace_folder, write_text
from fccl.storage.reading import read_value
from fccl.view.after import check_table
from fccl.view.markdown import markdown_table, quoted

_LONGEST_NAME = 100  # characters
MEASURES: Mapping[Phase, Measure] = {"sft": "instructions", "va": "pairs"}


def replayed(
    work: AtWork,
    changes: Mapping[str, str],
    without: Collection[int] = (),
    by_round: bool = False,
    retrain_from: int | None = None,
    on_round: Callable[[ReplayedRound], None] = lambda round: None,
) -> tuple[Replay, Adapter]:
    """The run aggregated again, and the adapter that it ends with. `changes` are the settings that differ.

    Raises `SettingsError` for a client or a round that the run does not have, `FederationError` where the rounds that
    it takes are not kept or a rule has too few updates.
    """
    require_clients(work, without)
    total = work.past.state.total_rounds
    if retrain_from is not None and not 0 <= retrain_from < total:
        raise SettingsError(f"--retrain {retrain_from + 1}: the run has rounds 1 to {total}", hint="name one of them")
    return replay_record(work.replayed(frozenset(without), by_round, retrain_from), changes, on_round)


def require_clients(work: AtWork, without: Collection[int]) -> None:
    """Raises `SettingsError` for clients that the run does not have, and for all that it has."""
    clients = work.past.settings.num_clients
    if strange := [client for client in without if client not in range(clients)]:
        raise SettingsError(f"the run has no client {strange[0]}", hint=f"its clients are 0 to {clients - 1}")
    if len(set(without)) >= clients:
        raise SettingsError("without all of its clients a run has no update", hint="leave one of them in")


def measured_influence(work: AtWork, orders: int = 0, on_set: Callable[[int], None] = lambda done: None) -> Influence:
    """The influence of every client on the final model, on the server's validation split: instructions and pairs.
    `orders` of 0 tries all sets of clients where they are few.

    Raises `FederationError` where rounds are not kept, or changes cannot be made from other adapters.
    """
    if work.by_round:
        raise FederationError(
            f"LORA_AGGREGATION={work.settings.lora_aggregation}: a round's factors are of other directions than the "
            "last's, so no change can be made from another adapter",
            hint="`fccl replay --without-client K --retrain 1` trains a run anew without a client",
        )
    work.require_updates()
    past, losses = work.past, FinalLosses(work)
    coalitions = Coalitions(
        logs=past.logs,
        rule=aggregation_rule(work.settings),
        plan=plan_as_it_went(past.settings, past.folder),
        numbers=replayable(past.logs, past.state.total_rounds),
        loss=losses.of,
        results=results_of(past.logs),
        on_set=on_set,
    )
    return influence(coalitions, losses.measured(), work.settings.seed, past.info.run_id, orders)


@dataclass(frozen=True, eq=False)
class FinalLosses:
    """The losses of a final model on the server's validation split: instructions, and pairs where the run had FedVA.

    Pairs are scored against the run's own reference policy, whoever made the model.
    """

    work: AtWork

    def of(self, adapter: Adapter) -> tuple[float, ...]:
        """One loss a measure."""
        return tuple(self._validation(phase, adapter).loss for phase in self._phases)

    def measured(self) -> list[MeasuredLoss]:
        """The measures, in the order of `of`."""
        examples = {phase: len(self._validator.split(phase)) for phase in self._phases}
        return [MeasuredLoss(MEASURES[phase], phases.of(phase).unit, examples[phase]) for phase in self._phases]

    @cached_property
    def _phases(self) -> tuple[Phase, ...]:
        plan = plan_as_it_went(self.work.past.settings, self.work.past.folder)
        return tuple(phase for phase in PHASES if phase == "sft" or plan.rounds_of(phase))

    @cached_property
    def _validator(self) -> Validator:
        settings, preference = self.work.settings, self.work.settings.train_spec("va").preference
        how = {"batch_size": settings.eval_batch_size, "threads": settings.threads}
        return Validator.of(self.work.model, self.work.data, "validation", preference=preference, **how)

    @cached_property
    def _reference(self) -> Adapter | None:
        taken = phases.takes_reference("va", self.work.settings.train_spec("va").preference)
        return load_adapter(self.work.past.logs.reference) if taken else None

    def _validation(self, phase: Phase, adapter: Adapter) -> Validation:
        return self._validator(phase, adapter, self._reference if phase == "va" else None)


def checker(
    log_dir: Path, run: str, given: Mapping[str, object], keys: KeyPaths | None = None
) -> tuple[AfterPaths, RunChecker]:
    """The place for findings on a finished run of a log folder, and what checks it. `keys` hold the public keys that
    the reader trusts.

    Raises as `past_run` does, `SettingsError` where the keys are none.
    """
    past = past_run(log_dir, run, "verify", given)
    settings = past.settings
    chosen = weigher(settings.contribution_mode, settings.contribution_source, settings.model_dump(), no_loss)
    claims = Claims(
        plan=plan_as_it_went(settings, past.folder),
        model=settings.model_spec(),
        train={phase: settings.train_spec(phase) for phase in PHASES},
        aggregation=aggregation_rule(settings),
        weights=chosen if isinstance(chosen, ContributionRule) else None,
        data=data_spec(settings),
    )
    public = read_public(keys) if keys else None
    return past.after, RunChecker(past.logs, past.info, claims, public, forgotten_files(past.after))


def no_loss() -> LearnLoss:
    """In the place of the server's examples, which a check does not need: a rule that asks for them is not run."""
    return cast(LearnLoss, None)


def forgotten_files(after: AfterPaths) -> frozenset[str]:
    """The files of the run that `fccl forget` has removed, by their names below its folder."""
    records = (read_value(path, Forgotten) for path in after.root.glob("forget-*/record.json"))
    return frozenset(name for record in records if record for name in record.removed)


def write_replay(after: AfterPaths, record: Replay, adapter: Adapter, out: Path | None = None) -> Path:
    """Write the record of a replay and its adapter, to `out` or in the place of the same replay before. Where that gave
    the same adapter, only the record is new: what was evaluated of it stays.

    Returns the folder. Raises `StorageError`.
    """
    folder = out or after.replay(replay_name(record))
    if out is None and (earlier := earlier_replay(after, record)) and earlier.adapter_sha256 == record.adapter_sha256:
        adapter.save(after.final(folder))
        write_text(after.record(folder), record.model_dump_json(indent=2) + "\n")
        return folder
    with new_folder(folder) as new:
        adapter.save(after.final(new))
        write_text(after.record(new), record.model_dump_json(indent=2) + "\n")
        replace_folder(new, folder)
    return folder


def earlier_replay(after: AfterPaths, record: Replay) -> Replay | None:
    """The answer to the same question that was written before; None where there is none."""
    return read_value(after.record(after.replay(replay_name(record))), Replay)


def write_influence(after: AfterPaths, found: Influence) -> Path:
    """Write who mattered, in the place of what was written before. Returns the file. Raises `StorageError`."""
    write_text(after.influence, found.model_dump_json(indent=2) + "\n")
    return after.influence


def write_check(after: AfterPaths, found: RunCheck, out: Path | None = None) -> Path:
    """Write what a check found, for programs and for people, to the folder `out` or beside the run's other answers.

    Returns the page. Raises `StorageError`.
    """
    place = AfterPaths(out) if out else after
    table = check_table(found)
    write_text(place.check, found.model_dump_json(indent=2) + "\n")
    final = f"Final adapter: SHA-256 {found.adapter_sha256 or 'none'} of its file. Checked by fccl {found.fccl}."
    write_text(place.check_page, f"# {quoted(table.title)}\n\n{final}\n\n{markdown_table(table)}\n")
    return place.check_page


def replay_name(record: Replay) -> str:
    """A name that says what was changed: the same question has the same name."""
    parts = [f"{name}-{value}" for name, value in sorted(record.changes.items())]
    parts += [f"without-{client}" for client in record.without]
    parts += ["by-round"] * record.by_round
    parts += [] if record.retrained_from is None else [f"retrain-{record.retrained_from + 1}"]
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", "_".join(parts)) or "as-it-was"
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}-{digest}"
