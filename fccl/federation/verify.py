"""Checking a finished run by its files: hashes, the seal, settings, signatures, and every kept round made again.

Nothing is trained and no model is loaded. What the kept rounds give again, with the recorded weights, must be the
recorded adapters, byte by byte, from the first kept round to the final adapter.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import ConfigDict, Field

from fccl import __version__
from fccl.adapters.adapter import adapter_file, load_adapter
from fccl.adapters.middle import folded
from fccl.adapters.ranks import rank_of
from fccl.aggregation.protocol import Aggregation
from fccl.contribution.reported import ContributionRule
from fccl.data.in_use import other_settings
from fccl.data.shards import read_manifest
from fccl.display.words import are, plural
from fccl.errors import FcclError, FederationError
from fccl.federation.excluded_again import require_same_exclusions
from fccl.federation.kept_rounds import KeptRound, kept_round, kept_rounds
from fccl.federation.late import with_discount
from fccl.federation.replay import aggregated_again
from fccl.federation.seal import is_as_sealed, sealed_files
from fccl.keys import PublicKeys
from fccl.paths import LogPaths
from fccl.records.after import Finding, Outcome, RunCheck
from fccl.records.journal import read_rounds
from fccl.records.kept_round import KeptUpdate
from fccl.records.run import ArrivedUpdate, PhaseEnd, RoundRecord, RunInfo, RunState
from fccl.records.seal import Seal
from fccl.specs import DataSpec, ModelSpec, Phase, RoundPlan, TrainSpec, Value
from fccl.storage.files import read_whole, sha256_of
from fccl.storage.reading import parse, read_value
from fccl.transports.exchange.wire import UpdateFile

UNHELD = "what no kept file follows from, such as weights from the server's examples, the seal alone holds"
NOT_SEALED = "the run has no seal: it was made by an earlier version, or was not finished"
_FEW = 3  # names in one line
_PEFT_WEIGHTS, _PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"


class _PeftScale(Value):
    """PEFT's configuration, as far as the scale of an adapter follows from it."""

    model_config = ConfigDict(extra="ignore")

    r: int = Field(ge=1)
    lora_alpha: float


@dataclass(frozen=True, eq=False)
class Claims:
    """Claims of a run's settings about its rounds. `train` is the training in the first round of each phase."""

    plan: RoundPlan
    model: ModelSpec
    train: Mapping[Phase, TrainSpec]
    aggregation: Aggregation
    weights: ContributionRule | None = None  # where they follow from what clients report alone
    data: DataSpec | None = None  # as the data should have been prepared


@dataclass(frozen=True, eq=False)
class RunChecker:
    """Checks the run in `logs`. `public` are the keys that the reader trusts, where there are any."""

    logs: LogPaths
    info: RunInfo
    claims: Claims
    public: PublicKeys | None = None
    forgotten: frozenset[str] = frozenset()  # files that `fccl forget` has removed

    def check(self) -> RunCheck:
        """All findings. Nothing that lies in the folder raises: what cannot be read is a finding."""
        findings = tuple(self._findings())
        final = adapter_file(self.logs.global_final)
        digest = sha256_of(final) if final.is_file() else ""
        return RunCheck(
            run_id=self.info.run_id,
            time=time.time(),
            fccl=__version__,
            adapter_sha256=digest,
            findings=findings,
        )

    def _findings(self) -> Iterator[Finding]:
        yield guarded("record", self._record)
        yield guarded("manifest", self._manifest)
        yield from self._seal()
        yield guarded("adapters", self._adapters)
        yield guarded("PEFT", self._exported)
        yield guarded("settings", self._settings)
        yield from map(self._round, range(len(self._records)))
        yield guarded("weights", self._weights)

    @cached_property
    def _records(self) -> Sequence[RoundRecord]:
        return read_rounds(self.logs)

    def _record(self) -> Finding:
        state = read_value(self.logs.state, RunState)
        records = self._records
        if state is None or state.run_id != self.info.run_id:
            return failed("record", f"{self.logs.state.name} is not that of run {self.info.run_id}")
        if [record.round for record in records] != list(range(state.next_round)):
            lines = f"one line for each of {plural(state.next_round, 'round')}"
            return failed("record", f"{self.logs.progress.name} has not {lines}")
        if {record.run_id for record in records} != {self.info.run_id}:
            return failed("record", f"{self.logs.progress.name} has rounds of another run")
        if not state.finished:
            return failed(
                "record", f"{state.next_round} of {are(state.total_rounds, 'round')} done: it is not finished"
            )
        return ok("record", f"run {self.info.run_id}: all {plural(state.total_rounds, 'round')}, in order")

    def _manifest(self) -> Finding:
        if not self.info.data_sha256:
            return unchecked("manifest", "the run had no prepared data")
        if sha256_of(self.logs.manifest) != self.info.data_sha256:
            return failed("manifest", f"{self.logs.manifest.name} is not the one that {self.logs.run.name} names")
        others = other_settings(read_manifest(self.logs), self.claims.data) if self.claims.data else []
        if others:
            return failed(
                "manifest", f"the data was prepared with {few(others)}, and {self.logs.run.name} says otherwise"
            )
        return ok("manifest", f"SHA-256 {self.info.data_sha256}: the data that the run was made with")

    def _seal(self) -> Iterator[Finding]:
        seal = read_value(self.logs.seal, Seal)
        if seal is None:
            yield self._without_seal()
            return
        yield guarded("seal", lambda: self._sealed(seal))
        yield self._signed(seal)

    def _without_seal(self) -> Finding:
        if os.path.lexists(self.logs.seal):
            return failed("seal", f"{self.logs.seal.name} is damaged")
        if self.public is not None:
            return failed("seal", f"{self.logs.seal.name} is not there, and keys were named that should have signed it")
        return unchecked("seal", NOT_SEALED)

    def _sealed(self, seal: Seal) -> Finding:
        if seal.run_id != self.info.run_id:
            return failed("seal", f"it is of run {seal.run_id}")
        if bytes(read_whole(self.logs.seal)) != seal.written():
            return failed("seal", f"{self.logs.seal.name} is not spelt as a run writes it")
        bad = [name for name in sorted(set(seal.files) - self._gone) if not self._is_as_sealed(name, seal)]
        extra = [name for name in map(self._name, sealed_files(self.logs)) if name not in seal.files]
        if bad or extra:
            return failed("seal", f"changed, missing or added since the run was finished: {few([*bad, *extra])}")
        without = f"; {len(self._gone)} were removed by `fccl forget`" if self._gone else ""
        there = len(seal.files.keys() - self._gone)
        return ok("seal", f"{are(there, 'file')} as when the run was finished{without}")

    @property
    def _gone(self) -> frozenset[str]:
        """Files that were taken out on purpose and are not there."""
        return frozenset(name for name in self.forgotten if not (self.logs.root / name).exists())

    def _is_as_sealed(self, name: str, seal: Seal) -> bool:
        path = self.logs.root / name
        if ".." in Path(name).parts or Path(name).is_absolute():
            return False
        if not path.is_file():  # a kept round may go for that of a newer run
            return path.name == self.logs.kept_round(0).inputs.name and not path.parent.exists()
        return is_as_sealed(path, seal.files[name], grows=path in (self.logs.progress, self.logs.client_metrics))

    def _name(self, path: Path) -> str:
        return path.relative_to(self.logs.root).as_posix()

    def _signed(self, seal: Seal) -> Finding:
        if not seal.signature and self.public is not None:
            return failed("signature", "the seal is not signed, and keys were named that should have signed it")
        if not seal.signature:
            return unchecked("signature", "the seal is not signed: whoever could write the files could seal them too")
        if self.public is None:
            return unchecked("signature", "the seal is signed; name the public keys with --keys-dir")
        if self.public.is_of_server(seal.signed_content(), seal.signature):
            return ok("signature", "the server's key has signed the seal")
        return failed("signature", "the server's key has not signed this seal")

    def _adapters(self) -> Finding:
        """The results of the phases are those that the record names."""
        records, ends = self._records, self._ends()
        state = read_value(self.logs.state, RunState)
        for phase, path in (("sft", self.logs.global_sft), ("va", self.logs.global_final)):
            if phase in ends and (found := load_adapter(path).sha256) != ends[phase]:
                return failed("adapters", f"{path.name} is {found[:12]}, the record names {ends[phase][:12]}")
        last = load_adapter(self.logs.global_final).sha256
        if records and last not in (records[-1].adapter_sha256, *ends.values()):
            return failed("adapters", f"{self.logs.global_final.name} is no round's adapter")
        if state is not None and records and state.adapter_sha256 != records[-1].adapter_sha256:
            return failed("adapters", f"{self.logs.state.name} names another adapter than the last round's record")
        return ok("adapters", f"the final adapter is {last}")

    def _exported(self) -> Finding:
        """The adapter in PEFT's format has the numbers and the scale of the final one."""
        folder, model = self.logs.adapter, self.claims.model
        if not os.path.lexists(folder):
            return unchecked("PEFT", f"{folder.name}/ is not there")
        final = load_adapter(self.logs.global_final)
        if load_adapter(folder / _PEFT_WEIGHTS).sha256 != folded(final).sha256:
            return failed("PEFT", f"{folder.name}/ has other numbers than {self.logs.global_final.name}")
        said = read_value(folder / _PEFT_CONFIG, _PeftScale)
        if said is None or said.r != rank_of(final.form):
            return failed("PEFT", f"{folder.name}/{_PEFT_CONFIG} has not the final adapter's rank")
        if not math.isclose(said.lora_alpha / said.r, model.lora_alpha / model.lora_r):
            return failed("PEFT", f"{folder.name}/{_PEFT_CONFIG} has another scale than the run: lora_alpha / r")
        return ok("PEFT", f"{folder.name}/ is the final adapter, at the run's scale")

    def _ends(self) -> dict[str, str]:
        """The hash of each phase's result."""
        found: dict[str, str] = {}
        for record in self._records:
            end: PhaseEnd | None = record.phase_end
            found[record.phase] = end.adapter_sha256 if end else record.adapter_sha256
        return found

    def _settings(self) -> Finding:
        """The settings that `run.json` has are those of the kept rounds' tasks."""
        numbers = kept_rounds(self.logs)
        if not numbers:
            return unchecked("settings", "no round is kept that they could be held against")
        for kept in (kept_round(self.logs, number) for number in numbers):
            if not self._is_as_set(kept):
                return failed("settings", f"round {kept.record.round + 1} was not made with the settings of run.json")
        return ok("settings", f"those of run.json are those of {plural(len(numbers), 'kept round')}; {UNHELD}")

    def _is_as_set(self, kept: KeptRound) -> bool:
        """Whether the task and the rule of a kept round are those of the settings. A schedule that goes over rounds may
        have been planned for another number of them; a number of threads that was left open was the machine's.
        """
        said, claims = kept.inputs, self.claims
        train, expected = said.train, claims.train[kept.record.phase]
        if claims.plan.lr_schedule != "constant":
            train = train.model_copy(update={"learning_rate": expected.learning_rate})
        if not expected.threads:
            train = train.model_copy(update={"threads": 0})
        text = said.model.text.model_copy(update={"template": claims.model.text.template})
        model = said.model.model_copy(update={"text": text})
        found = train, model, said.seed, kept.record.aggregation
        return found == (expected, claims.model, claims.plan.seed, claims.aggregation.name)

    def _round(self, number: int) -> Finding:
        name = f"round {number + 1}"
        if number not in kept_rounds(self.logs):
            return unchecked(name, "its updates are no longer kept (KEEP_UPDATES_MB), so it is not made again")
        return guarded(name, lambda: self._again(name, kept_round(self.logs, number)))

    def _again(self, name: str, kept: KeptRound) -> Finding:
        if gone := [self._name(path) for path in files_of(kept) if not path.exists()]:
            return unchecked(name, f"no longer kept: {few(gone)}")
        made = aggregated_again(kept, self.claims.aggregation)
        if made.adapter.sha256 != kept.aggregate_sha256:
            return failed(name, "the kept updates with the recorded weights give another adapter")
        for update in kept.arrived():
            update.adapter.load()  # also those that did not count
            if update.control is not None:
                update.control.load()
        require_same_exclusions(kept, self.claims.plan.max_update_ratio)
        self._require_chain(kept)
        learned = "; the server's own training after it is not repeated" if kept.record.learning else ""
        counted = f"{plural(len(kept.record.clients), 'update')} made {kept.aggregate_sha256[:12]} again"
        return ok(name, f"{counted}{learned}{signed_words(kept, self.public)}")

    def _require_chain(self, kept: KeptRound) -> None:
        """Raises `FederationError` unless the round began with what the one before ended with."""
        number = kept.record.round
        begins = number and self.claims.plan.begins_phase(number)
        before = self._ends()["sft"] if begins else self._records[number - 1].adapter_sha256 if number else ""
        if (before or self.info.start_sha256) not in ("", kept.adapter.sha256):
            raise FederationError("it began with another adapter than the one before it ended with")

    def _weights(self) -> Finding:
        rule = self.claims.weights
        if rule is None:
            again = "not all updates that they weigh are here" if self._gone else "`fccl replay` makes them again"
            return unchecked("weights", f"they follow from the server's examples: {again}")
        if not all(record.contributions for record in self._records):
            return unchecked("weights", "clients reported nothing that is not noised or masked")
        for record in self._records:
            counts = {each.client_id: each.counted for each in record.declared}
            said = [
                each.model_copy(update={"num_samples": counts.get(client, each.num_samples)})
                for client, each in zip(record.clients, record.contributions, strict=True)
            ]
            late = {each.client_id for each in record.late}
            if with_discount(rule.weights(said), [client in late for client in record.clients]) != record.weights:
                return failed("weights", f"round {record.round + 1}: its reports give other weights")
        return ok("weights", "every round's weights follow from what its clients reported")


def files_of(kept: KeptRound) -> Iterator[Path]:
    """The files of a kept round's updates and control variates."""
    for each in kept.record.arrived:
        yield kept.paths.update(each.client_id, each.sha256)
        if each.control_sha256:
            yield kept.paths.control(each.client_id, each.control_sha256)


def signed_words(kept: KeptRound, public: PublicKeys | None) -> str:
    """Words on the clients' signatures of a kept round; empty where there are none.

    Raises `FederationError` for one that is not the client's, or is not of the update that was kept.
    """
    signed = [each.client_id for each in kept.inputs.updates if each.signed]
    if not signed or public is None:
        return "; its clients have signed: name the public keys with --keys-dir" if signed else ""
    for said, arrived in zip(kept.inputs.updates, kept.record.arrived, strict=True):
        if not said.signed or not _is_signed(kept, said, arrived, public):
            raise FederationError(f"client {said.client_id} has not signed the update that was kept of it")
    codec = kept.inputs.train.codec
    unchecked = "" if codec.is_whole else f" as they sent it in {codec.name}, of which these were made by the server"
    return f"; signed by its {plural(len(signed), 'client')}{unchecked}"


def _is_signed(kept: KeptRound, said: KeptUpdate, arrived: ArrivedUpdate, public: PublicKeys) -> bool:
    """Whether the client's signed message speaks of this update: its round, its files, what it says of its training.

    Under a codec it names the bytes that were sent, and those are not kept.
    """
    message = parse(said.signed.encode(), UpdateFile, f"the message of client {said.client_id}")
    control = message.control.sha256 if message.control else ""
    adapter = message.adapter.sha256 if kept.inputs.train.codec.is_whole else arrived.sha256
    found = message.run_id, message.round, message.phase, message.client_id, adapter, control
    late = said.trained_for is not None
    number, base = (
        (said.trained_for, kept.inputs.before_sha256) if late else (kept.record.round, kept.inputs.adapter_sha256)
    )
    asked = kept.record.run_id, number, kept.record.phase, said.client_id
    same = found == (*asked, arrived.sha256, arrived.control_sha256) and message.contribution() == said.contribution
    return same and message.base_sha256 == base and message.was_of_client(said.client_id, public)


def guarded(name: str, check: Callable[[], Finding]) -> Finding:
    """The finding, or the error that it met as one."""
    try:
        return check()
    except (FcclError, ValueError, KeyError, IndexError) as error:
        return failed(name, str(error))


def ok(name: str, detail: str) -> Finding:
    return finding(name, "ok", detail)


def failed(name: str, detail: str) -> Finding:
    return finding(name, "failed", detail)


def unchecked(name: str, detail: str) -> Finding:
    return finding(name, "not checked", detail)


def finding(name: str, outcome: Outcome, detail: str) -> Finding:
    """One finding, its detail on one line."""
    return Finding(name=name, outcome=outcome, detail=" ".join(detail.split()))


def few(names: Sequence[str]) -> str:
    """The first few of these names."""
    rest = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return ", ".join(names[:_FEW]) + rest
