"""One client of an exchange directory: sees a round, trains on its own shard, answers, until the run is done."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from fccl.adapters.adapter import Adapter, adapter_from_bytes
from fccl.adapters.coded import CodedAdapter
from fccl.display.plain_text import printable
from fccl.errors import AdapterError, StorageError, UpdateRejected
from fccl.keys import Keys
from fccl.messages import (
    Answer,
    ClientFailure,
    ClientUpdate,
    FitTask,
    Learner,
    LoadShard,
    Residuals,
    ResidualsInMemory,
    Service,
    StatusListener,
    Worker,
)
from fccl.paths import ExchangePaths
from fccl.records.run import ClientStatus
from fccl.storage.files import storage_errors
from fccl.storage.locks import exclusive, in_sight
from fccl.storage.reading import identity, is_there, parse, read_bounded
from fccl.storage.temporary import sweep
from fccl.transports.exchange import members
from fccl.transports.exchange.answers import read_named
from fccl.transports.exchange.few_bytes import adapter_in_few_bytes
from fccl.transports.exchange.heartbeat import Heartbeat
from fccl.transports.exchange.memory import Memory
from fccl.transports.exchange.quarantine import Quarantine
from fccl.transports.exchange.replies import Replies
from fccl.transports.exchange.silence import QUIET_S, Silence
from fccl.transports.exchange.told import no_round, own_rank, update_line, why_idle
from fccl.transports.exchange.watch import Polling, Watcher, watcher
from fccl.transports.exchange.wire import (
    MAX_JSON_BYTES,
    MAX_REASON,
    MAX_TASK_BYTES,
    VERSION,
    AdapterFile,
    FailureFile,
    FitWork,
    TaskFile,
    UpdateFile,
)
from fccl.transports.protocol import SILENT, Listener

NEW_RUN_GRACE_S = 20.0
HINT_S = 15.0  # without any round: this may be the wrong folder


@dataclass(frozen=True, eq=False)
class AskedRound:
    """An open round that asks this client: its task, the file that says it, and the heartbeat to speak through."""

    task: FitTask
    file: TaskFile
    heartbeat: Heartbeat


@dataclass
class ExchangeClient:
    """The client's side of `docs/protocol.md`. `listen` hears its heartbeats, and a line whenever something happens.

    A client that starts after a run was done waits `grace_s` for another one to begin: the orchestrator may just be
    starting too.
    """

    paths: ExchangePaths
    client_id: int
    learner: Learner
    load_shard: LoadShard
    keys: Keys | None = None
    memory: Memory | None = None  # of the rounds that the server has signed
    heartbeat_s: float = 5.0
    watch: Literal["auto", "notify", "poll"] = "auto"
    grace_s: float = NEW_RUN_GRACE_S
    hint_s: float = HINT_S
    quiet_s: float = QUIET_S
    listen: Listener = SILENT
    services: Sequence[Service] = ()  # for other kinds of request than `fit`
    residuals: Residuals = field(default_factory=ResidualsInMemory)  # what a codec has left out so far
    # in the order in which they were seen; none that was left comes back
    _runs: list[str] = field(default_factory=list)
    _joined: set[str] = field(default_factory=set)  # the runs in which it has said so
    _complaints: set[str] = field(default_factory=set)
    _newest_seen: tuple[os.stat_result, TaskFile] | None = None  # the newest round's phase file and its task
    _committed: TaskFile | None = None  # the last task that this process has answered
    # those that the last task named, by the hash of their files
    _adapters: dict[str, Adapter] = field(default_factory=dict)

    def run(self) -> None:
        """Answer rounds until the run is done.

        Raises `StorageError`, and `FederationError` when this client runs already.
        """
        for asked in self.rounds():
            self.answer(asked)

    def rounds(self) -> Iterator[AskedRound]:
        """The rounds that ask this client, to the end of the run. A round that is not answered comes again.

        The client's lock and its heartbeat are held while it is iterated over. Raises as `run`.
        """
        Quarantine(self.paths).clear_for_file(self.paths.client_lock(self.client_id), client_id=self.client_id)
        with (
            exclusive(self.paths.client_lock(self.client_id), f"client {self.client_id}"),
            Heartbeat(self.paths, self.client_id, self.heartbeat_s) as heartbeat,
            self._watcher() as bell,
            in_sight(self.paths.root) as require_here,
        ):
            sweep(self.paths.root, partial(self.paths.is_half_written, client_id=self.client_id))
            yield from self._open_rounds(heartbeat, bell, require_here)
            heartbeat.turn("done")

    def _watcher(self) -> Watcher:
        try:
            Quarantine(self.paths).clear_for_folder(self.paths.bell)
            return watcher(self.paths.bell, self.watch)
        except StorageError as error:  # the bell is not this client's own; it only spares the looking
            self._complain(str(error))
            return Polling()

    def _open_rounds(
        self, heartbeat: Heartbeat, bell: Watcher, require_here: Callable[[], None]
    ) -> Iterator[AskedRound]:
        started, silence = time.monotonic(), Silence(self.quiet_s)
        while True:
            require_here()
            task = self.newest()
            if task is not None and task.work is None:
                if self.client_id in task.revoked:
                    self._complain(why_idle(task, self.client_id))
                if task.run_id in self._runs[-1:] or time.monotonic() - started > self.grace_s:
                    return
            elif task is not None and task.work is not None:
                self.remember(task.run_id)
                self._join(task, task.work)
                if idle := why_idle(task, self.client_id):
                    self._complain(idle)
                # an answer may be gone because its round is over, so the round is looked at once more
                elif not self.is_answered(task) and self.newest() == task:
                    asked = self.begin(task, task.work, heartbeat)
                    if asked is not None:
                        yield asked
                        silence.broken()
            elif task is None and not self._runs and time.monotonic() - started >= self.hint_s:
                self._complain(no_round(self.paths.root))
            if self.reply(heartbeat):
                silence.broken()
            elif hint := silence.line(task):
                self._complain(hint)
            heartbeat.check()
            bell.wait(self.heartbeat_s)  # what happened meanwhile ends it at once

    def _join(self, task: TaskFile, work: FitWork) -> None:
        """Say once in a run that this client takes part, where members come and go."""
        if work.open and self.keys is not None and task.run_id not in self._joined:
            self._joined.add(task.run_id)
            if not members.has_joined(self.paths, task.run_id, self.client_id):
                members.state(self.paths, self.keys, task, self.client_id, "join")

    def leave(self) -> str:
        """Say that this client leaves the open run. Returns the run's id.

        Raises `FederationError` when there is none, or this client is at work.
        """
        with exclusive(self.paths.client_lock(self.client_id), f"client {self.client_id}"):
            task = members.require_open(self.newest(), self.keys)
            members.state(self.paths, self.keys, task, self.client_id, "leave")
            return task.run_id

    @cached_property
    def _worker(self) -> Worker:
        return Worker(self.learner, self.load_shard, self.services, self.residuals)

    @cached_property
    def _replies(self) -> Replies:
        return Replies(self.paths, self.client_id, self._worker, self.keys, self.memory, self._complain)

    def reply(self, heartbeat: Heartbeat) -> bool:
        """Reply to a request of another kind than `fit`, if one is open. Says whether there was one."""
        said = self._replies.look(self, self._heard_by(heartbeat))
        if said is not None:
            self.listen.line(
                f"round {said.round + 1}: {said.kind}: {f'failed: {said.error}' if said.error else 'done'}"
            )
            heartbeat.turn("failed" if said.error else "done")
        return said is not None

    def newest(self) -> TaskFile | None:
        """The task of the newest round that the server has opened, if any can be believed."""
        if self._newest_seen is not None and self._is_still_newest(*self._newest_seen):
            return self._newest_seen[1]
        self._newest_seen = None
        with storage_errors(self.paths.root, "read"):
            phases = [self.paths.name(text) for text in os.listdir(self.paths.root) if text.startswith("phase_")]
        for number in sorted(
            (name.round for name in phases if name is not None and name.round is not None), reverse=True
        ):
            try:
                found = os.lstat(self.paths.phase(number)), self._read_task(number)
            except FileNotFoundError:
                continue  # the server has just cleared it away
            except UpdateRejected as error:
                if is_there(self.paths.phase(number)):
                    self._complain(f"round {number + 1} is not believed: {error}")
            else:
                self._newest_seen = found
                return found[1]
        return None

    def _is_still_newest(self, phase: os.stat_result, task: TaskFile) -> bool:
        """Rounds are opened one after the other, so two looks tell, however many files there are."""
        try:
            now = os.lstat(self.paths.phase(task.round))
        except FileNotFoundError:
            return False
        same = (now.st_ino, now.st_mtime_ns) == (phase.st_ino, phase.st_mtime_ns)
        return same and not is_there(self.paths.phase(task.round + 1))

    def _read_task(self, number: int) -> TaskFile:
        """Raises `UpdateRejected` when the round's files contradict each other, or the server has not signed them."""
        phase = bytes(read_bounded(self.paths.phase(number), 100)).decode("ascii", "replace").strip()
        path = self.paths.task(number)
        task = parse(read_bounded(path, MAX_TASK_BYTES), TaskFile, path.name)
        if (task.round, task.phase) != (number, phase):
            said = printable(phase)
            raise UpdateRejected(
                f"{path.name} is of round {task.round}, phase {task.phase}; {self.paths.phase(number).name} says {said}"
            )
        if self.keys is not None and not task.is_of_server(self.keys.public):
            raise UpdateRejected("the server has not signed it")
        if self.memory is not None:
            self.memory.require_not_older(task)
        self.require_not_left(task.run_id)
        return task

    def require_not_left(self, run_id: str) -> None:
        """Raises `UpdateRejected` for a run that this client has gone on from."""
        if run_id in self._runs[:-1]:
            raise UpdateRejected(f"run {printable(run_id)} was over before")

    def remember(self, run_id: str) -> None:
        """Note the run that this client works for; an earlier one is not gone back to."""
        if run_id not in self._runs[-1:]:
            self._runs.append(run_id)
            self._complaints.clear()
            self._adapters.clear()

    def is_answered(self, task: TaskFile) -> bool:
        """Whether this client's answer to this very task is committed. One that the server took away (refused, or to
        try again) is not.

        A failure counts for the process that it befell: started again, it tries again.
        """
        if identity(self.paths.flag(self.client_id, task.round)) is None:
            return False
        if self._committed == task:
            return True
        path = self.paths.contribution(self.client_id, task.round)
        try:
            said = parse(read_bounded(path, MAX_JSON_BYTES), UpdateFile, path.name)
        except UpdateRejected:
            return False
        about = said.run_id, said.round, said.phase, said.base_sha256
        return about == (task.run_id, task.round, task.phase, task.adapter.sha256) and said.is_masked_for(task)

    def begin(self, task: TaskFile, work: FitWork, heartbeat: Heartbeat) -> AskedRound | None:
        """The round with all that its task speaks of; None, with a complaint, where that cannot be believed."""
        try:
            fit = FitTask.from_terms(task.terms(), self._adapters_of(task, work))
        except (UpdateRejected, AdapterError) as error:
            # unless the server has gone on, only it can mend this
            self._complain(f"round {task.round + 1} cannot be begun: {error}")
            return None
        return AskedRound(fit, task, heartbeat)

    def answer(self, asked: AskedRound) -> Answer:
        """Train as the task says and commit the result, unless the server has gone on meanwhile. Returns it."""
        task, heartbeat = asked.file, asked.heartbeat
        self.listen.line(f"round {task.round + 1} ({task.phase}): training")
        answer = self._worker.answer(asked.task, self.client_id, self._heard_by(heartbeat))
        newest = self.newest()
        if newest is None or not task.still_counts(newest, isinstance(answer, ClientUpdate)):
            self.listen.line(f"round {task.round + 1} ({task.phase}): too late, the server has gone on")
            heartbeat.turn("idle")
            return answer
        self.commit(task, answer)
        if newest.round != task.round:
            self.listen.line(f"round {task.round + 1} ({task.phase}): late; it counts in the next round")
        if isinstance(answer, ClientFailure) and answer.declines:  # it has said nothing of this round so far
            heartbeat.tell(asked.task.status(self.client_id, "declined"))
        else:
            heartbeat.turn("done" if isinstance(answer, ClientUpdate) else "failed")
        return answer

    def _heard_by(self, heartbeat: Heartbeat) -> StatusListener:
        """A listener that writes the heartbeat and tells it on."""

        def hear(status: ClientStatus) -> None:
            heartbeat.tell(status)
            self.listen.heartbeat(status)

        return hear

    def _adapters_of(self, task: TaskFile, work: FitWork) -> dict[str, Adapter]:
        """The global adapter, the reference, and what SCAFFOLD adds to this client's gradients."""
        if task.adapter.sha256 not in self._adapters:
            short = adapter_in_few_bytes(self.paths, task, work, self._adapters.values())
            self._adapters |= {} if short is None else {task.adapter.sha256: short}
        files = {"adapter": (self.paths.global_adapter(task.round), task.adapter)}
        if work.reference is not None:
            files["reference"] = self.paths.reference(work.reference.sha256), work.reference
        if (told := work.correction_of(self.client_id)) is not None:
            files["correction"] = self.paths.correction(told.sha256), told
        found = {name: self._adapter(path, file) for name, (path, file) in files.items()}
        kept = {file.sha256 for _, file in files.values()}
        self._adapters = {sha256: known for sha256, known in self._adapters.items() if sha256 in kept}
        return found

    def _adapter(self, path: Path, file: AdapterFile) -> Adapter:
        """A server's adapter, if the file is the one that the task names. Raises `UpdateRejected` or `AdapterError`."""
        if file.sha256 not in self._adapters:
            self._adapters[file.sha256] = adapter_from_bytes(read_named(path, file, "the task"), path.name)
        return self._adapters[file.sha256]

    def commit(self, task: TaskFile, answer: Answer) -> None:
        """Write the answer; the flag last, for it commits."""
        _, contribution, flag = self.paths.answer(self.client_id, task.round)
        whose = {
            "version": VERSION,
            "run_id": task.run_id,
            "round": task.round,
            "phase": task.phase,
            "base_sha256": task.adapter.sha256,
            "client_id": self.client_id,
        }
        said: UpdateFile | FailureFile
        if isinstance(answer, ClientUpdate):
            said = self._write_update(task, answer, whose)
        else:
            reason = printable(answer.reason, MAX_REASON) or "unknown"
            said = FailureFile(**whose, error=reason, declines=answer.declines)
        self._write(task, contribution, said.signed(self.keys).written())
        if self.memory is not None:
            self.memory.note(task)
        self._write(task, flag, b"")
        self._committed = task
        if isinstance(said, UpdateFile):
            result = update_line(said)
        else:
            result = said.error if said.declines else f"failed: {said.error}"
        self.listen.line(f"round {task.round + 1} ({task.phase}): {result}")

    def _write_update(self, task: TaskFile, answer: ClientUpdate, whose: dict[str, Any]) -> UpdateFile:
        """Write the adapter and the control variate. Returns the contribution that names them."""
        control = None if answer.control is None else answer.control.load().to_bytes()
        if isinstance(answer.adapter, CodedAdapter):
            path, content = self.paths.coded_update(self.client_id, task.round), answer.adapter.content
        else:
            path, content = self.paths.update(self.client_id, task.round), answer.adapter.load().to_bytes()
        self._write(task, path, content)
        if control is not None:
            self._write(task, self.paths.control(self.client_id, task.round), control)
        return UpdateFile(
            **whose,
            adapter=AdapterFile.of(content),
            lora_r=own_rank(task, answer),
            control=None if control is None else AdapterFile.of(control),
            avg_loss=answer.contribution.avg_loss,
            num_samples=answer.contribution.num_samples,
            training_time=answer.contribution.seconds,
            report=answer.report,
            masked=answer.masked,
        )

    def _write(self, task: TaskFile, path: Path, content: bytes) -> None:
        Quarantine(self.paths).write(
            path, content, run_id=task.run_id, round_number=task.round, client_id=self.client_id
        )

    def _complain(self, what: str) -> None:
        """Say it once: whatever is wrong is looked at again and again."""
        if what not in self._complaints:
            self._complaints.add(what)
            self.listen.line(what)
