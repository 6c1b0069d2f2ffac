"""A run on the screen: bars on a terminal, plain lines elsewhere. No logic of the run is here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from fccl import phases
from fccl.display.plain_text import MAX_LINE, printable
from fccl.display.words import named_clients, plural
from fccl.messages import Answer, ClientUpdate
from fccl.records.run import (
    WITHHELD,
    ClientMetrics,
    ClientStatus,
    RoundRecord,
    RunInfo,
    ServerLearning,
    Validation,
)
from fccl.records.secure import SecureRound
from fccl.specs import RoundPlan
from fccl.tracking.listener import Past, RunListener, Stop

_NAMED = 8  # clients on the bar


def screen_for(console: Console, plan: RoundPlan, way_on: str) -> RunScreen:
    """Bars when a person watches, lines when a file does. `way_on` says how a stopped run is resumed."""
    return _Bars(console, plan, way_on) if console.is_terminal else RunScreen(console, plan, way_on)


def answer_line(answer: Answer) -> Text:
    """One client's answer in one line."""
    if isinstance(answer, ClientUpdate):
        said, report = answer.contribution, answer.report
        if answer.masked is not None:
            return Text(f"  client {answer.client_id}: a masked update, which only the sum gives a meaning")
        if said == WITHHELD:
            return Text(f"  client {answer.client_id}: a noised update, and no figure of its training")
        cut = f", {report.truncated} cut to fit" if report.truncated else ""
        loss = f"loss {said.avg_loss:.3f} {phases.of(answer.phase).short_unit}"
        return Text(
            f"  client {answer.client_id}: {said.num_samples} samples, {loss}, {said.seconds:.1f} s, "
            f"{report.tokens_per_second:,.0f} tokens/s{cut}"
        )
    if answer.declines:
        return Text(printable(f"  client {answer.client_id}: {answer.reason}", MAX_LINE))
    return Text(printable(f"  client {answer.client_id}: excluded: {answer.reason}", MAX_LINE), style="red")


def round_line(record: RoundRecord, plan: RoundPlan) -> Text:
    """One round in one line."""
    weights = " ".join(
        f"{client}:{weight:.2f}" for client, weight in zip(record.clients[:8], record.weights, strict=False)
    )
    more = f" and {len(record.clients) - 8} more" if len(record.clients) > 8 else ""
    parts = [
        f"round {record.round + 1}/{plan.total_rounds} {phases.of(record.phase).title}",
        f"weights {weights}{more}" if weights else "",
        f"effective clients {record.effective_clients:.2f}" if weights else "",
        secure_text(record.secure),
        validation_text(record.validation, record.phase) + learning_text(record.learning),
        f"ε {record.privacy.epsilon:.2f} of {record.privacy.budget:g}" if record.privacy else "",
        f"{record.seconds:.1f} s",
    ]
    return Text("; ".join(part for part in parts if part), style="bold")


def secure_text(secure: SecureRound | None) -> str:
    """A secure sum in words, with the clients that gave false shares."""
    if secure is None:
        return ""
    false = named_clients(secure.false_shares)
    return f"secure sum of {len(secure.clients)} clients" + (f", a false share by {false} left out" if false else "")


def validation_text(validation: Validation | None, phase: str) -> str:
    """The validation figures of a round in words."""
    if validation is None:
        return ""
    accuracy = (
        "" if validation.preference_accuracy is None else f", preference accuracy {validation.preference_accuracy:.0%}"
    )
    return f"validation loss {validation.loss:.3f} {phases.of(phase).short_unit}{accuracy}"


def learning_text(learning: ServerLearning | None) -> str:
    """The change by the server's own training in words, to follow the validation figures."""
    if learning is None:
        return ""
    before = f"{learning.before.loss:.3f} before " if learning.before else "after "
    return f" ({before}the server learned from {plural(learning.examples, 'example')} in {learning.seconds:.1f} s)"


class RunScreen(RunListener):
    """A line for everything that happens: for pipes, files, containers."""

    def __init__(self, console: Console, plan: RoundPlan, way_on: str) -> None:
        self.console, self.plan, self.way_on = console, plan, way_on

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing moves on the screen any more."""

    def told(self, line: str) -> None:
        self.console.print(Text(printable(line, MAX_LINE)), soft_wrap=True)

    def started(self, info: RunInfo, base: Validation | None) -> None:
        if base is not None:
            unit = phases.of("sft").short_unit
            self.console.print(f"Base model: validation loss {base.loss:.3f} {unit}.", soft_wrap=True)

    def resumed(self, info: RunInfo, base: Validation | None, past: Past, next_round: int) -> None:
        for record, _ in past:
            self._heard_end(record)
        said = f"Resuming {info.run_id} after round {next_round} of {self.plan.total_rounds}."
        self.console.print(said, soft_wrap=True)

    def answer(self, answer: Answer) -> None:
        self.console.print(answer_line(answer), soft_wrap=True)

    def round(self, record: RoundRecord, metrics: Sequence[ClientMetrics]) -> None:
        self.console.print(round_line(record, self.plan), soft_wrap=True)
        self._heard_end(record)

    def _heard_end(self, record: RoundRecord) -> None:
        """A phase that ended early has fewer rounds than were planned."""
        if record.phase_end and record.phase_end.early:
            self.plan = self.plan.as_it_went({record.phase: record.phase_end.rounds})

    def stopped(self, stop: Stop) -> None:
        self.close()
        on = f" {self.way_on}." if stop.resumable else ""
        said = f"Stopped with {stop.complete} of {plural(stop.total, 'round')} complete.{on}"
        self.console.print(said, soft_wrap=True)

    def finished(self) -> None:
        self.close()


class _Detail(ProgressColumn):
    """Loss and speed of the clients that are training; nothing on the bar of the whole run."""

    def render(self, task: Task) -> Text:
        if task.fields.get("loss") is None:
            return Text("")
        return Text(f"loss {task.fields['loss']:.3f}  {task.fields['speed']:,.0f} tokens/s", style="cyan")


class _Bars(RunScreen):
    """Two bars, the run's and that of the clients that are training, below the lines of what is done."""

    def __init__(self, console: Console, plan: RoundPlan, way_on: str) -> None:
        super().__init__(console, plan, way_on)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
        )
        self.bars = Progress(*columns, TimeRemainingColumn(), _Detail(), console=console, transient=True)
        self.answered = 0
        self.training: dict[int, ClientStatus] = {}  # the last heartbeat of each client that is training
        total = plan.total_rounds * plan.clients_per_round
        self.whole = self.bars.add_task("the run", start=False, total=total)
        self.client: TaskID = self.bars.add_task("waiting", start=False, total=1, loss=None, speed=0.0)

    def close(self) -> None:
        self.bars.stop()

    def started(self, info: RunInfo, base: Validation | None) -> None:
        super().started(info, base)
        self._begin(0)

    def resumed(self, info: RunInfo, base: Validation | None, past: Past, next_round: int) -> None:
        super().resumed(info, base, past, next_round)
        self._begin(next_round)

    def _begin(self, next_round: int) -> None:
        self.answered = next_round * self.plan.clients_per_round
        for bar in (self.whole, self.client):
            self.bars.start_task(bar)
        self.bars.update(self.whole, completed=self.answered)
        self.bars.start()

    def status(self, status: ClientStatus) -> None:
        if status.state != "training":
            return
        self.training[status.client_id] = status
        where = f"round {status.round + 1}/{self.plan.total_rounds}"
        done = self.answered + sum(map(_share, self.training.values()))
        self.bars.update(self.whole, completed=done, description=f"{where} {phases.of(status.phase).title}")
        self._show(_clients(self.training), list(self.training.values()))

    def learning(self, status: ClientStatus) -> None:
        self._show("the server", [status])

    def _show(self, who: str, at_work: Sequence[ClientStatus]) -> None:
        """The steps of those that train beside each other together, their mean loss, and all their tokens."""
        step, steps = sum(status.step for status in at_work), sum(status.steps for status in at_work)
        losses = [status.loss for status in at_work if status.loss is not None]
        self.bars.update(
            self.client,
            description=f"{who} step {step}/{steps}" if steps else f"{who} before the first step",
            completed=sum(map(_share, at_work)) / len(at_work),
            loss=sum(losses) / len(losses) if losses else None,
            speed=sum(status.tokens_per_second for status in at_work),
        )

    def answer(self, answer: Answer) -> None:
        self.answered += 1
        self.training.pop(answer.client_id, None)
        self.bars.update(self.whole, completed=self.answered)
        super().answer(answer)

    def _heard_end(self, record: RoundRecord) -> None:
        super()._heard_end(record)
        self.bars.update(self.whole, total=self.plan.total_rounds * self.plan.clients_per_round)


def _clients(numbers: Iterable[int]) -> str:
    found = sorted(numbers)
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return f"client{'s' * (len(found) > 1)} {', '.join(map(str, found[:_NAMED]))}{more}"


def _share(status: ClientStatus) -> float:
    """The part of its training that a client has done, from 0 to 1."""
    return status.step / status.steps if status.steps else 0.0
