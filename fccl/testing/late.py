"""Contract of late answers (LATE_UPDATES=next), for transports that give clients up: beside `TransportContract`.

    class TestMineLate(LateContract):
        @pytest.fixture
        def make_late(self, tmp_path):
            return lambda hold: MyScene(tmp_path, HeldLearner(hold))

Client `LATE` of the transport waits in a round while the file `hold / str(round)` is there; the others do not wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import pytest

from fccl.adapters.adapter import Adapter
from fccl.aggregation.mean import weighted_mean
from fccl.data.shards import ClientShard
from fccl.federation.rounds import Federation
from fccl.federation.state import RoundResult
from fccl.messages import Answer, ClientUpdate, FitTask, StatusListener
from fccl.records.late import LateUpdate
from fccl.records.run import ClientStatus
from fccl.testing.reference_learner import LearnerWithReference
from fccl.testing.toy import MODEL, START, TRAIN, federation, shard
from fccl.testing.transport import CLIENTS
from fccl.transports.protocol import Transport

LATE = 2  # the client that is held
OTHERS = tuple(client for client in range(CLIENTS) if client != LATE)


@dataclass
class HeldLearner(LearnerWithReference):
    """Client `LATE` begins a round once the round's file in `hold` is gone."""

    hold: Path = field(default_factory=Path)

    def fit(self, task: FitTask, shard: ClientShard, on_status: StatusListener) -> ClientUpdate:
        """The toy update, after the wait."""
        while shard.client_id == LATE and (self.hold / str(task.round)).exists():
            time.sleep(0.01)
        return super().fit(task, shard, on_status)


class LateScene(Protocol):
    """A transport to `CLIENTS` clients with `HeldLearner`, and what a test may let happen."""

    transport: Transport

    def give_up(self) -> None:
        """Let the open round's deadline pass."""
        ...

    def wait_for(self, round_number: int) -> None:
        """Return once the answer of client `LATE` to this round can be read."""
        ...


MakeLate = Callable[[Path], AbstractContextManager[LateScene]]


@dataclass
class Director:
    """Once `OTHERS` have answered a round, lets happen what `then` names, and in the rounds of `late_in` the deadline
    pass.
    """

    scene: LateScene
    late_in: tuple[int, ...]
    then: dict[int, Callable[[], None]]
    heard: list[ClientUpdate] = field(default_factory=list)

    def __call__(self, answer: Answer) -> None:
        if not isinstance(answer, ClientUpdate) or answer.client_id == LATE:
            return
        self.heard.append(answer)
        if sum(each.round == answer.round for each in self.heard) == len(OTHERS):
            self.then.get(answer.round, lambda: None)()
            if answer.round in self.late_in:
                self.scene.give_up()


def held_in(folder: Path, *rounds: int) -> Path:
    """The folder, with a file for each round in which client `LATE` is to wait."""
    folder.mkdir()
    for number in rounds:
        (folder / str(number)).touch()
    return folder


def let_go(folder: Path) -> None:
    """No round holds any longer."""
    for path in folder.iterdir():
        path.unlink()


class LateContract:
    """The duties of a transport whose clients may answer late. Subclasses give the fixture `make_late`."""

    @pytest.fixture
    def make_late(self) -> MakeLate:
        """`make_late(hold)`: a context manager of a scene whose client `LATE` is held by that folder."""
        raise NotImplementedError

    @pytest.mark.parametrize("when", ["before_the_next_round", "within_the_next_round"])
    def test_a_late_answer_counts_once_in_the_next_round_as_a_change(
        self, make_late: MakeLate, tmp_path: Path, when: str
    ) -> None:
        hold, fed = held_in(tmp_path / "hold", 0, 1, 2), federation(CLIENTS, rounds=3, late_updates="next")
        with make_late(hold) as scene:

            def come() -> None:
                (hold / "0").unlink()
                scene.wait_for(0)

            director = Director(scene, (0, 1, 2), {1: come} if when == "within_the_next_round" else {})
            results = _three(fed, director, come if when == "before_the_next_round" else lambda: None)
            let_go(hold)
        assert [result.record.late for result in results] == [(), (LateUpdate(client_id=LATE, round=0),), ()]
        assert [result.record.clients for result in results] == [OTHERS, tuple(range(CLIENTS)), OTHERS]
        assert [[out.client_id for out in result.record.excluded] for result in results] == [[LATE], [], [LATE]]
        assert results[1].state.adapter.to_bytes() == second_round_by_hand(fed).to_bytes()

    def test_a_late_answer_is_passed_over_where_its_client_has_one_in_the_next_round(
        self, make_late: MakeLate, tmp_path: Path
    ) -> None:
        hold, fed = held_in(tmp_path / "hold", 0), federation(CLIENTS, rounds=3, late_updates="next")
        with make_late(hold) as scene:

            def come() -> None:
                let_go(hold)
                scene.wait_for(1)

            results = _three(fed, Director(scene, (0,), {1: come}))
        assert [result.record.late for result in results] == [(), (), ()]
        assert [result.record.clients for result in results] == [OTHERS, tuple(range(CLIENTS)), tuple(range(CLIENTS))]

    def test_a_late_answer_counts_nowhere_in_another_phase(self, make_late: MakeLate, tmp_path: Path) -> None:
        hold, fed = held_in(tmp_path / "hold", 0, 1), federation(CLIENTS, rounds=1, late_updates="next")
        with make_late(hold) as scene:

            def come() -> None:
                (hold / "0").unlink()
                scene.wait_for(0)

            results = _three(fed, Director(scene, (0, 1), {}), come)
            let_go(hold)
        assert [(result.record.late, result.record.clients) for result in results] == [((), OTHERS)] * 2


def _three(fed: Federation, director: Director, between: Callable[[], None] = lambda: None) -> list[RoundResult]:
    """The first rounds, three at most; `between` happens after the first of them."""
    found: list[RoundResult] = []
    for result in replace(fed, on_answer=director).run(START, director.scene.transport):
        found.append(result)
        if len(found) == 1:
            between()
        if len(found) == 3:
            break
    return found


def second_round_by_hand(fed: Federation) -> Adapter:
    """The adapter after two rounds, client `LATE` late in both: θ_2 = sum of w_i u_i, its u being θ_1 + (u_0 - θ_0)."""
    first, updates = _task(fed, 0, START.adapter), {}
    for client in range(CLIENTS):
        updates[client] = HeldLearner().fit(first, shard(client), _unheard)
    there = [updates[client] for client in OTHERS]
    second = _task(fed, 1, _mean(fed.rule.weigh(first, there).weights, [each.adapter.load() for each in there]))
    again = {client: HeldLearner().fit(second, shard(client), _unheard) for client in OTHERS} | {LATE: updates[LATE]}
    now, before = second.adapter.tensors["w"].double(), first.adapter.tensors["w"].double()
    change = updates[LATE].adapter.load().tensors["w"].double() - before
    moved = Adapter({"w": (now + change).float()})
    weights = fed.rule.weigh(second, [again[client] for client in sorted(again)]).weights
    parts = [weight * (2**-0.5 if client == LATE else 1) for client, weight in enumerate(weights)]
    adapters = [moved if client == LATE else again[client].adapter.load() for client in sorted(again)]
    return _mean([part / sum(parts) for part in parts], adapters)


def _mean(weights: Sequence[float], adapters: list[Adapter]) -> Adapter:
    return weighted_mean(zip(weights, adapters, strict=True))


def _task(fed: Federation, number: int, start: Adapter) -> FitTask:
    return FitTask("run", number, "sft", start, None, MODEL, TRAIN, fed.plan.seed)


def _unheard(status: ClientStatus) -> None:
    """Nobody listens."""
