"""Reading a run again and again: the first look at a long history, and a look after one more round.

    python benchmarks/bench_view.py [--clients 200] [--rounds 500] [--looks 20] [--folder .]

Makes the logs of a run with that many clients and rounds, all clients in every round, then measures in this process:

1. the first `RunReader.refresh()`, of all rounds but the last `--looks`; 2. a `refresh()` after one more round was
appended (one record, a line for every client, every heartbeat replaced), median of `--looks` rounds; 3. what reading
everything anew costs at that moment, as a new reader does it, and as `fccl.storage.reading.read_records` does; 4.
`run_status`, and the last 50 lines that contain a text.
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fccl.paths import LogPaths  # noqa: E402
from fccl.records.run import (  # noqa: E402
    ClientMetrics,
    ClientStatus,
    Contribution,
    RoundRecord,
    RunEvent,
    RunInfo,
    RunState,
    Validation,
    Verification,
)
from fccl.specs import Phase, named_seed  # noqa: E402
from fccl.storage.reading import read_records  # noqa: E402
from fccl.view.runs import RunReader, tail  # noqa: E402
from fccl.view.status import run_status  # noqa: E402
from fccl.view.values import RunView  # noqa: E402

RUN, BEGAN, ROUND_S = "20260101-000000-abcd", 1.7e9, 30.0


class History:
    """Writes a run round by round, as a run itself does, but for the flushing to the disk."""

    def __init__(self, paths: LogPaths, clients: int, rounds: int) -> None:
        self.paths, self.clients, self.rounds = paths, clients, rounds
        settings = {"num_clients": str(clients), "clients_per_round": "0", "fed_rounds": str(rounds // 2)}
        info = RunInfo(run_id=RUN, created=BEGAN, settings=settings, data_sha256="", versions={})
        paths.run.write_text(info.model_dump_json())
        base = Validation(loss=6.5, examples=96)
        self._append(
            paths.progress,
            [RunEvent(event="started", run_id=RUN, time=BEGAN, round=0, validation=base).model_dump_json()],
        )

    def add(self, number: int) -> None:
        """One complete round."""
        draw = random.Random(named_seed(0, "history", number))
        phase: Phase = "sft" if number < self.rounds // 2 else "va"
        said = [
            Contribution(
                avg_loss=draw.uniform(0.5, 3), num_samples=draw.randrange(50, 900), seconds=draw.uniform(5, 20)
            )
            for _ in self._all
        ]
        at = BEGAN + (number + 1) * ROUND_S
        self._append(
            self.paths.client_metrics,
            [self._metrics(client, number, phase, at, said[client], draw) for client in self._all],
        )
        self._append(self.paths.progress, [self._record(number, phase, at, said, draw).model_dump_json()])
        state = RunState(
            run_id=RUN, next_round=number + 1, total_rounds=self.rounds // 2 * 2, adapter_sha256=f"{number:064x}"
        )
        self.paths.state.write_text(state.model_dump_json())
        for client in self._all:
            status = ClientStatus(
                client_id=client,
                state="done",
                run_id=RUN,
                round=number,
                phase=phase,
                step=9,
                steps=9,
                host="host",
                time=at,
            )
            self.paths.status(client).write_text(status.model_dump_json())

    @property
    def _all(self) -> range:
        return range(self.clients)

    def _append(self, path: Path, lines: list[str]) -> None:
        with open(path, "a", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in lines)

    def _metrics(
        self, client: int, number: int, phase: Phase, at: float, said: Contribution, draw: random.Random
    ) -> str:
        return ClientMetrics(
            run_id=RUN,
            time=at,
            round=number,
            phase=phase,
            client_id=client,
            **said.model_dump(),
            tokens=draw.randrange(5_000, 50_000),
            tokens_per_second=draw.uniform(1_000, 9_000),
            steps=draw.randrange(10, 90),
            truncated=0,
            first_loss=draw.uniform(1, 6),
            update_norm=draw.uniform(1, 10),
        ).model_dump_json()

    def _record(
        self, number: int, phase: Phase, at: float, said: list[Contribution], draw: random.Random
    ) -> RoundRecord:
        raw = [draw.random() for _ in said]
        weights = tuple(part / sum(raw) for part in raw)
        return RoundRecord(
            run_id=RUN,
            time=at,
            round=number,
            phase=phase,
            selected=tuple(self._all),
            clients=tuple(self._all),
            weights=weights,
            scores=tuple(raw),
            contributions=tuple(said),
            effective_clients=1 / sum(weight**2 for weight in weights),
            validation=Validation(
                loss=draw.uniform(0.1, 2), preference_accuracy=draw.random() if phase == "va" else None, examples=96
            ),
            verification=Verification(
                examples=32, prior=weights[::-1], loss_prior=draw.uniform(1, 2), loss_weights=draw.random(), seconds=1.0
            ),
            lora_error=draw.random(),
            adapter_sha256=f"{number:064x}",
            update_norm=draw.uniform(1, 10),
            seconds=ROUND_S,
        )


@dataclass(frozen=True)
class Took:
    """Milliseconds on the clock, and of processor time: on a busy machine the first says little."""

    wall: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.wall:9.1f} ms {self.cpu:9.1f} ms"


def timed(work: Callable[[], object]) -> Took:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Took(1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu))


def median(looks: list[Took]) -> Took:
    return Took(statistics.median(look.wall for look in looks), statistics.median(look.cpu for look in looks))


def megabytes_at_peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read_with_journal(paths: LogPaths) -> None:
    read_records(paths.progress, RoundRecord, lambda row: row.get("event") == "round")
    read_records(paths.client_metrics, ClientMetrics)


def measure(folder: Path, clients: int, rounds: int, looks: int) -> None:
    paths = LogPaths(folder)
    history = History(paths, clients, rounds)
    for number in range(rounds - looks):
        history.add(number)
    before, reader = megabytes_at_peak(), RunReader(paths)
    first = timed(reader.refresh)
    memory = megabytes_at_peak() - before
    updates, idle = [], []
    for number in range(rounds - looks, rounds):
        history.add(number)
        updates.append(timed(reader.refresh))
        idle.append(timed(reader.refresh))
    report(paths, reader.refresh(), first, memory, median(updates), median(idle))


def report(paths: LogPaths, view: RunView, first: Took, memory: float, update: Took, idle: Took) -> None:
    size = (paths.progress.stat().st_size + paths.client_metrics.stat().st_size) / 2**20
    anew, journal = timed(RunReader(paths).refresh), timed(lambda: read_with_journal(paths))
    client_7 = '"client_id":7,'
    print(
        f"{len(view.rounds):,} records, {len(view.shares):,} shares, {len(view.metrics):,} lines of metrics, "
        f"{size:.0f} MiB"
    )
    print(f"{'':36}{'clock':>12}{'processor':>13}")
    print(f"the first look                      {first}   {memory:.0f} MiB more at the peak")
    print(f"one more round, median              {update}")
    print(f"nothing new, median                 {idle}")
    print(f"everything anew                     {anew}   {anew.cpu / update.cpu:.0f} times one more round")
    print(f"everything anew, with read_records  {journal}   {journal.cpu / update.cpu:.0f} times one more round")
    print(f"run_status                          {timed(lambda: run_status(view, time.time()))}")
    print(f"last 50 lines of one client         {timed(lambda: tail(view, 'client_metrics', 50, client_7))}")
    print(f"last 50 lines with a text not there {timed(lambda: tail(view, 'client_metrics', 50, 'no such text'))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--looks", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=None, help="where the logs are made; removed afterwards")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        measure(Path(folder), options.clients, options.rounds, options.looks)


if __name__ == "__main__":
    main()
