"""The probe of `fccl plan`: a small run under the real settings, in a folder that is gone afterwards.

It is a run like any other, with the same transport, processes and rules, on a sample of the clients' examples. The
server's splits are whole, so a round costs the server what it costs in the run.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fccl.config import Settings
from fccl.data.shards import ClientShard
from fccl.federation.run_folder import RunFolder
from fccl.federation.workload import FileSizes, PlannedRound, planned_rounds
from fccl.library.inner_run import inner_run, inner_settings
from fccl.library.narrow import data_spec, evaluation_options
from fccl.library.probe_files import file_sizes, traffic_of
from fccl.library.sample import Lengths, Measure, sampled, write_sample
from fccl.library.setup import PreparedRun
from fccl.library.side_by_side import evaluation_beside
from fccl.library.usage import usage_so_far
from fccl.model.encoding import encode
from fccl.model.language_model import LanguageModel
from fccl.model.loading import Models
from fccl.model.scoring import token_counts
from fccl.paths import DataPaths, LogPaths
from fccl.records.forecast import TrafficForecast, Usage
from fccl.records.journal import read_rounds
from fccl.records.manifest import Manifest
from fccl.records.run import RoundRecord, RunEvent
from fccl.specs import PHASES
from fccl.storage.reading import read_records
from fccl.transports.processes import ProcessesTransport
from fccl.transports.protocol import Transport

MOST_CLIENTS = 4  # of a probe, or as many as there are processes
_A_BATCH = 1e10  # weights times tokens that a probe trains a client on in a round, about
_MOST_BATCHES = 16  # with fewer, what a client's round costs however long it is counts as a cost of its tokens
_MOST_GENERATIONS = 8  # a batch of them takes hardly longer than one


@dataclass(frozen=True)
class EvaluationProbe:
    """Seconds of an evaluation of few examples and of more, and of some generations of each model beside."""

    few: int
    first: float
    examples: int
    seconds: float
    generations: int
    generating: float


@dataclass(frozen=True)
class Probed:
    """The outcome of a probe: its rounds as planned and as recorded, the files that it left, the memory it took."""

    settings: Settings
    planned: tuple[PlannedRound, ...]
    records: tuple[RoundRecord, ...]
    start: float
    finish: float
    sizes: FileSizes
    traffic: tuple[TrafficForecast, ...]
    usage: Usage
    evaluated: EvaluationProbe | None
    seconds: float


def measure_of(settings: Settings, weights: int, lengths: Lengths) -> Measure:
    """The size of the probe for a model of so many weights: a few batches, one where a step takes seconds."""
    sizes = [length for phase in PHASES for known in lengths[phase].values() for length in known]
    tokens = settings.batch_size * sum(sizes) / max(1, len(sizes))
    batches = max(1, min(_MOST_BATCHES, int(_A_BATCH / (weights * max(1.0, tokens)))))
    clients = min(settings.round_plan().clients_per_round, max(MOST_CLIENTS, settings.client_processes))
    return Measure(clients, batches * settings.batch_size)


def probe_settings(settings: Settings, measure: Measure, root: Path) -> Settings:
    """The settings of the probe: two or three rounds of each phase that the run has, and folders of its own."""
    rounds = 2 if measure.examples == settings.batch_size else 3
    plan, ranks = settings.round_plan(), settings.client_ranks
    changes = {
        "min_shard": 0,
        "dp_epsilon": 1e9,  # the probe releases nothing
        **{f"{phase}_rounds": min(rounds, 2 * plan.rounds_of(phase)) for phase in PHASES},
        "patience": 10**6 if settings.patience else 0,  # its cost is measured, and it ends nothing
        "num_clients": measure.clients,
        "clients_per_round": measure.clients,
        "min_clients": 1,
        "client_lora_r": ",".join(map(str, ranks[: measure.clients])) if len(ranks) > 1 else settings.client_lora_r,
        "original_clients": "",
        "client_processes": min(settings.client_processes, measure.clients),
    }
    return inner_settings(settings, root).model_copy(update=changes)


def probed(
    settings: Settings,
    model: LanguageModel,
    models: Models,
    data: DataPaths,
    manifest: Manifest,
    shards: Sequence[ClientShard],
    lengths: Lengths,
    measure: Measure,
) -> Probed:
    """Run it. Leaves nothing behind. Raises what a run raises."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fccl-plan-") as name:
        own = probe_settings(settings, measure, Path(name))
        part = sampled(shards, lengths, measure)
        write_sample(data, manifest, data_spec(own), part, DataPaths(own.data_dir))
        planned = _planned(own, model, part)
        folder = RunFolder.at(own.log_dir)
        with inner_run(own, folder, model, models) as (work, transport):
            waited = _ready(transport)
            for _ in work.run.rounds(transport):
                pass
            work.run.finish(transport)
            evaluated = evaluation_probed(work, transport) if settings.evaluate else None
            usage = usage_so_far(work.run.identity.run_id)
        found = _read(own, planned, folder.paths, usage, evaluated, time.monotonic() - began)
        return replace(found, start=max(0.0, found.start - waited))


def _ready(transport: Transport) -> float:
    """Wait for the clients' processes, and say for how long: those of a run begin beside its own start."""
    began = time.monotonic()
    if isinstance(transport, ProcessesTransport):
        transport.started().ready()
    return time.monotonic() - began


def _planned(settings: Settings, model: LanguageModel, shards: Sequence[ClientShard]) -> tuple[PlannedRound, ...]:
    train = {phase: settings.train_spec(phase) for phase in PHASES}
    return tuple(planned_rounds(settings.round_plan(), train, lengths_of(model, shards)))


def lengths_of(model: LanguageModel, shards: Sequence[ClientShard]) -> Lengths:
    """The tokens of every example, as training counts them. Raises `ModelError` for a chat template that fails."""
    spec = model.spec
    return {
        phase: {
            shard.client_id: token_counts(encode(model.tokenizer, phase, shard.of(phase), spec.max_length, spec.text))
            for shard in shards
            if shard.of(phase)
        }
        for phase in PHASES
    }


def evaluation_probed(work: PreparedRun, transport: Transport) -> EvaluationProbe:
    """Few examples of each kind in the test split, the same with generations, then a batch of each kind or more."""
    settings, beside = work.settings, evaluation_beside(transport)
    options, counts = evaluation_options(settings, settings.seed), work.manifest.counts["test"]
    shown = min(_MOST_GENERATIONS, settings.gen_samples, counts["sft"])
    least = max(1, shown)
    most = max(settings.eval_batch_size, 2 * least)

    def seconds(count: int, samples: int) -> float:
        began = time.monotonic()
        part = options.model_copy(update={"max_sft": count, "max_va": count, "gen_samples": samples})
        work.evaluate(part, evaluate=beside)
        return time.monotonic() - began

    first = seconds(least, 0)
    generating = max(0.0, seconds(least, shown) - first) if shown else 0.0
    few, examples = (sum(min(each, counts[phase]) for phase in PHASES) for each in (least, most))
    return EvaluationProbe(few, first, examples, seconds(most, 0), shown, generating)


def _read(
    settings: Settings,
    planned: tuple[PlannedRound, ...],
    logs: LogPaths,
    usage: Usage,
    evaluated: EvaluationProbe | None,
    seconds: float,
) -> Probed:
    """All that the folder of the probe says, before it goes."""
    records = tuple(read_rounds(logs))
    events = {
        event.event: event.time
        for event in read_records(logs.progress, RunEvent, lambda row: row.get("event") != "round")
    }
    info = RunFolder.at(logs.root).recorded("read")
    return Probed(
        settings=settings,
        planned=planned,
        records=records,
        start=events["started"] - info.created,
        finish=events["finished"] - records[-1].time,
        sizes=file_sizes(logs, records),
        traffic=traffic_of(logs, records),
        usage=usage,
        evaluated=evaluated,
        seconds=seconds,
    )
