"""Clients of a run side by side: in how many processes, with how many threads, and what each process holds.

The number of processes changes no byte of a run; the number of threads may. So a run keeps its threads, and each
machine that goes on with it chooses its own processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from fccl.config import Settings
from fccl.data.shards import ClientShard, load_shard, read_manifest
from fccl.errors import FcclError, SettingsError
from fccl.evaluation.beside import Evaluator, EvaluatorMaker, side_by_side_in
from fccl.evaluation.own_test import OwnTester
from fccl.evaluation.suite import Evaluate, one_by_one
from fccl.library.personal import personal_learner
from fccl.library.privacy import Guard
from fccl.library.setup import PreparedRun
from fccl.messages import ClientFailure, Given, Learner, Request, ResidualsInFolders, StatusListener, Worker
from fccl.model.activations import IN_MEMORY, Activations
from fccl.model.gpus import gpus_here
from fccl.model.language_model import LanguageModel
from fccl.model.loading import Models
from fccl.model.precision import own_device
from fccl.paths import DataPaths, LogPaths
from fccl.processes.gpus import own_gpu
from fccl.processes.launch import Launch
from fccl.processes.memory import free_bytes
from fccl.processes.pool import Pool
from fccl.records.run import ClientStatus
from fccl.specs import ModelSpec
from fccl.training.engines import learner_for
from fccl.transports.in_process import InProcessTransport
from fccl.transports.processes import ProcessesTransport
from fccl.transports.protocol import Transport

A_PROCESS = 500_000_000  # bytes that one takes without a model, and with its examples
BEAT_S = 0.1  # seconds between heartbeats of a client that trains: a screen shows no more
PER_WEIGHT = 2  # times the model's weights: what a training step keeps, or a copy of weights in another precision


def side_by_side(settings: Settings, given: Mapping[str, object], why_not: str = "") -> Settings:
    """The settings with so many processes and threads as clients of this machine train with; `why_not` is a reason
    against more than one process.

    Raises `SettingsError` for an argument that asks for several where there can be one.
    """
    if why_not := why_not or _why_not(settings):
        _refuse_several(settings, given, why_not)
    clients, cores = settings.round_plan().clients_per_round, torch.get_num_threads()
    asked = 1 if why_not else min(_on_gpus(settings, given), clients)
    threads = settings.threads or max(1, cores // (asked or clients))
    processes = asked or usual_processes(clients, max(1, cores // threads))
    return settings.model_copy(update={"client_processes": processes, "threads": threads})


def usual_processes(clients: int, at_once: int) -> int:
    """The number of processes for clients of like size, of which `at_once` find a core for themselves.

    More processes than that share the cores, which is faster where the clients then come out even. Three clients on two
    cores take 1.5 times one client's time in three processes, and twice that time in two.

    >>> [usual_processes(clients, 2) for clients in (1, 2, 3, 4, 5)]
    [1, 2, 3, 2, 2]
    """
    if at_once == 1:
        return 1
    if clients <= at_once:
        return clients
    return next((count for count in range(at_once, 2 * at_once) if clients % count == 0), at_once)


def transport_for(
    settings: Settings,
    learner: Learner,
    work: Callable[[], PreparedRun],
    begun: Launch | None = None,
    models: Models | None = None,
) -> Transport:
    """The transport to the clients of a run that need not be prepared yet. `models` score what clients keep apart.

    As soon as it is entered its processes begin to load what they need, beside this one; `begun` has done so before.
    """
    gpus = gpus_here()
    begun = _usable(begun, settings.client_processes, gpus)
    if settings.client_processes == 1:
        personal, guard = personal_learner(settings.state_dir, learner), Guard.of_run(settings)
        tester, held = OwnTester(models or Models(), learner, personal.adapter_for), guard.over(personal)
        services = tester, *guard.masking().services()
        residuals = ResidualsInFolders(LogPaths(settings.log_dir).residuals_of)
        return InProcessTransport(held, lambda client: work().shard(client), services, settings.at_once, residuals)
    return ProcessesTransport(
        Pool(
            WorkplaceMaker.of(settings),
            settings.client_processes,
            begun,
            _environments(settings.client_processes, gpus),
        ),
        lambda phase: work().manifest.samples_by_client()[phase],
        lambda: _said(settings, work(), free_bytes()),
    )


def evaluation_beside(transport: Transport) -> Evaluate | None:
    """Evaluates models side by side, in the processes of this transport; None where it has none."""
    return side_by_side_in(transport.started()) if isinstance(transport, ProcessesTransport) else None


@contextmanager
def evaluators(settings: Settings, count: int, model: LanguageModel, begun: Launch | None = None) -> Iterator[Evaluate]:
    """Evaluates models of a run whose clients are done, in so many processes of its own; 1 is this one, with `model`.

    The processes load the model beside each other; `begun` has loaded the libraries before.
    """
    gpus = gpus_here()
    begun = _usable(begun, count, gpus)
    if count == 1:
        yield one_by_one(model, settings.threads)
        return
    make = EvaluatorMaker(settings.model_spec(), settings.threads)
    with Pool(make, count, begun, _environments(count, gpus)) as pool:
        pool.start(count)
        yield side_by_side_in(pool)


def evaluation_processes(
    settings: Settings, given: Mapping[str, object], models: int, model: LanguageModel, free: int | None
) -> int:
    """The number of processes for so many models of a run, each with the threads of the run, which keep its figures.

    `CLIENT_PROCESSES` names it, or cores and `free` bytes of memory do. Raises `SettingsError` for an argument that
    asks for several where there can be one.
    """
    threads = settings.threads
    if why_not := _one_gpu() or ("" if threads else "the run has no number of threads that its figures follow from"):
        _refuse_several(settings, given, why_not)
        return 1
    asked = min(_on_gpus(settings, given), models)
    usual = usual_processes(max(1, models), max(1, torch.get_num_threads() // threads))
    return that_fit(asked or usual, model, free)


def paced(say: StatusListener, now: Callable[[], float] = time.monotonic) -> StatusListener:
    """Passes heartbeats on, but of a client between two steps at most one in `BEAT_S`: a step may take 20 ms, and to
    tell it elsewhere a twentieth of that.
    """
    last = -BEAT_S

    def hear(status: ClientStatus) -> None:
        nonlocal last
        if status.state != "training" or not status.step or now() - last >= BEAT_S:
            last = now()
            say(status)

    return hear


@dataclass(frozen=True)
class Workplace(Evaluator):
    """The object of a process: does clients' work, and evaluates the models that it trains."""

    worker: Worker

    def answer(self, request: Request[Given], client_id: int, say: StatusListener) -> Given | ClientFailure:
        """One client's answer, with some ten heartbeats a second. Raises as `Worker.answer`."""
        return self.worker.answer(request, client_id, paced(say))


@dataclass(frozen=True)
class WorkplaceMaker:
    """Makes the workplace of a process, with the model in memory and the way to the clients' shards."""

    data: DataPaths
    logs: LogPaths
    model: ModelSpec
    ranks: tuple[int, ...]
    kept_bytes: int  # of activations, in each process
    threads: int
    guard: Guard = Guard(Path("state"))  # noqa: RUF009 (frozen)

    @classmethod
    def of(cls, settings: Settings) -> WorkplaceMaker:
        """That of these settings. All processes together keep as many activations as one would."""
        kept = IN_MEMORY // settings.client_processes
        where, guard = (DataPaths(settings.data_dir), LogPaths(settings.log_dir)), Guard.of_run(settings)
        return cls(*where, settings.model_spec(), settings.client_ranks, kept, settings.threads, guard)

    def __call__(self) -> Workplace:
        models = Models(activations=Activations(most_bytes=self.kept_bytes))
        with suppress(FcclError):  # it is the reason of every client's failure, once it is asked
            for rank in set(self.ranks) or {self.model.lora_r}:
                models.of(self.model.of_rank(rank))
        learner = learner_for(models, self.ranks)
        residuals = ResidualsInFolders(self.logs.residuals_of)
        personal = personal_learner(self.guard.state, learner)
        services = OwnTester(models, learner, personal.adapter_for), *self.guard.masking().services()
        worker = Worker(self.guard.over(personal), self.shard, services, residuals)
        return Workplace(models, self.model, self.threads, worker)

    def shard(self, client_id: int) -> ClientShard:
        """One client's examples, as they were prepared."""
        return load_shard(self.data, client_id, read_manifest(self.data))


def _why_not(settings: Settings) -> str:
    """A reason why several processes would be no use, or would give other bytes."""
    if settings.at_once > 1:
        return f"CLIENTS_AT_ONCE={settings.at_once} trains them in one batch, in one process"
    return _one_gpu()


def _one_gpu() -> str:
    one = own_device().type != "cpu" and len(gpus_here()) < 2
    return "this machine has a GPU, which one process keeps busy" if one else ""


def _refuse_several(settings: Settings, given: Mapping[str, object], why_not: str) -> None:
    """Raises `SettingsError` for an argument that asks for several processes."""
    if settings.client_processes > 1 and "client_processes" in given:
        raise SettingsError(
            f"CLIENT_PROCESSES={settings.client_processes}: {why_not}", hint="leave it out: one process is enough then"
        )


def _on_gpus(settings: Settings, given: Mapping[str, object]) -> int:
    """The number of processes that is asked for; where there are several GPUs, one for each unless fewer are named.

    Raises `SettingsError` for an argument that asks for more.
    """
    asked, gpus = settings.client_processes, len(gpus_here())
    if gpus < 2:
        return asked
    if asked > gpus and "client_processes" in given:
        line = f"CLIENT_PROCESSES={asked}: this machine has {gpus} GPUs, and one process keeps one busy"
        raise SettingsError(line, hint=f"leave it out, or name at most {gpus}")
    return min(asked or gpus, gpus)


def _environments(processes: int, gpus: Sequence[str]) -> list[Mapping[str, str]]:
    """Of each process: its own GPU. None where there are not several."""
    return [own_gpu(number, gpus) for number in range(processes)] if len(gpus) > 1 else []


def _usable(begun: Launch | None, processes: int, gpus: Sequence[str]) -> Launch | None:
    """A child that has begun, if so many processes can come of it; else it is ended."""
    if begun and (len(gpus) > 1 or not 1 < processes <= begun.lines):
        begun.end()
        return None
    return begun


def that_fit(wanted: int, model: LanguageModel, free: int | None) -> int:
    """The number of processes, of those wanted, that so many free bytes are enough for; at least one."""
    if free is None:
        return wanted
    return max(1, min(wanted, free // _needed(model)))


def _needed(model: LanguageModel) -> int:
    return A_PROCESS + PER_WEIGHT * sum(tensor.nbytes for tensor in model.weights().values())


def _said(settings: Settings, work: PreparedRun, free: int | None) -> int:
    """The number of processes, once it has been said. It is what memory allows, however many were asked for."""
    wanted, threads = settings.client_processes, settings.threads
    count = that_fit(wanted, work.model, free)
    short = f" ({wanted} need {wanted * _needed(work.model) / 1e9:.1f} GB of memory, {(free or 0) / 1e9:.1f} are free)"
    work.run.listener.told(
        f"Clients train in {count} process{'es' * (count > 1)}{short * (count < wanted)}, "
        f"{threads} thread{'s' * (threads > 1)}{' and one GPU' * (len(gpus_here()) > 1 and count > 1)} each."
    )
    return count
