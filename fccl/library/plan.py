"""`planned`: the forecast of a run, from its settings and a probe of a few steps."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace

from fccl.config import Settings
from fccl.data.in_use import SILENT, Witness
from fccl.data.shards import ClientShard, load_shard
from fccl.display.words import size
from fccl.errors import SettingsError
from fccl.federation.keeper import MB
from fccl.federation.workload import FileSizes, PlannedRound, kept_space, planned_rounds, space
from fccl.library.borrowed_data import borrowed_data
from fccl.library.forecasting import Layout, evaluation_seconds, processes_forecast, round_forecasts
from fccl.library.obstacles import Room, free_disk, obstacles
from fccl.library.other_figures import other_figures
from fccl.library.probe import Probed, lengths_of, measure_of, probed
from fccl.library.sample import Lengths
from fccl.model.activations import IN_MEMORY
from fccl.model.language_model import LanguageModel
from fccl.model.loading import Models
from fccl.model.memory import Shape, own_memory, shape_of
from fccl.paths import DataPaths
from fccl.phases import takes_reference
from fccl.processes.memory import free_bytes
from fccl.records.forecast import Forecast, Obstacle, Probe, ProcessForecast, SpaceForecast
from fccl.records.manifest import Manifest
from fccl.specs import PHASES

_FLOAT = 4  # bytes
MOST_ROUNDS = 10_000


@dataclass(frozen=True, eq=False)
class _Ahead:
    """A run that has not begun, with all that is known of it without a step."""

    settings: Settings
    model: LanguageModel
    data: DataPaths
    manifest: Manifest
    shards: tuple[ClientShard, ...]
    lengths: Lengths
    planned: tuple[PlannedRound, ...]


def planned(settings: Settings, models: Models, witness: Witness = SILENT) -> Forecast:
    """The forecast of a run with these settings, as `fccl run` has decided them. Prepared data is used where it is
    there, and prepared for the occasion where it is not; the probe's own folder is gone afterwards.

    Raises what a run with these settings raises.
    """
    if settings.round_plan().total_rounds > MOST_ROUNDS:
        raise SettingsError(
            f"{settings.round_plan().total_rounds:,} rounds: every round's draw is counted, of at most {MOST_ROUNDS:,}",
            hint="plan fewer rounds, and multiply",
        )
    model = models.of(settings.model_spec())
    with borrowed_data(settings, witness) as (data, manifest):
        ahead = _ahead(settings, model, manifest, data)
        shape = _shape(model)
        if shape and (too_much := _too_much(ahead, shape)):
            return _forecast(ahead, None, shape, (too_much,))
        measure = measure_of(settings, sum(tensor.numel() for tensor in model.weights().values()), ahead.lengths)
        probe = probed(settings, model, models, data, manifest, ahead.shards, ahead.lengths, measure)
        return _forecast(ahead, probe, shape)


def _ahead(settings: Settings, model: LanguageModel, manifest: Manifest, data: DataPaths) -> _Ahead:
    clients = range(manifest.spec.partition.num_clients)
    shards = tuple(load_shard(data, client, manifest) for client in clients)
    lengths = lengths_of(model, shards)
    train = {phase: settings.train_spec(phase) for phase in PHASES}
    rounds = tuple(planned_rounds(settings.round_plan(), train, lengths))
    return _Ahead(settings, model, data, manifest, shards, lengths, rounds)


def _shape(model: LanguageModel) -> Shape | None:
    """The sizes of the model, where its configuration says them by the usual names."""
    with suppress(AttributeError):
        return shape_of(model)
    return None


def _longest(ahead: _Ahead) -> int:
    return max((work.longest for each in ahead.planned for work in each.work.values()), default=0)


def _too_much(ahead: _Ahead, shape: Shape) -> Obstacle | None:
    """The reason to try no step: by the formula of `fccl.model.memory` even one process would be killed in it."""
    need, room = shape.training_bytes(_longest(ahead)), own_memory()
    if need <= room:
        return None
    what = f"memory: a step needs about {size(need)}, this machine or its container has {size(room)}; it was not tried"
    half = max(1, ahead.settings.train_spec("va").at_a_time // 2)
    return Obstacle(what=what, hint=f"MICRO_BATCH_SIZE={half}, or a smaller MAX_LENGTH or model")


def _forecast(ahead: _Ahead, probe: Probed | None, shape: Shape | None, known: tuple[Obstacle, ...] = ()) -> Forecast:
    settings, processes = ahead.settings, _processes(ahead, probe, shape)
    files, found = _space(ahead, probe, processes) if probe else ((), ())
    tests = ahead.manifest.counts["test"]
    texts = min(settings.gen_samples, tests["sft"])
    return Forecast(
        created=time.time(),
        settings={name: str(value) for name, value in settings.model_dump().items()},
        rounds=tuple(round_forecasts(ahead.planned, probe, _layout(settings))),
        start=probe.start if probe else None,
        finish=probe.finish if probe else None,
        evaluation=evaluation_seconds(probe, sum(tests.values()), texts) if probe else None,
        processes=processes,
        space=files,
        traffic=probe.traffic if probe else (),
        obstacles=(*known, *found),
        others=other_figures(settings, ahead.manifest),
        probe=_probe(probe) if probe else None,
    )


def _space(
    ahead: _Ahead, probe: Probed, processes: tuple[ProcessForecast, ...]
) -> tuple[tuple[SpaceForecast, ...], tuple[Obstacle, ...]]:
    """The files of the run, and what does not fit on disk or in memory."""
    settings, sizes = ahead.settings, _sizes(probe, ahead)
    most = settings.keep_updates_mb * MB
    files = space(settings.round_plan(), ahead.planned, sizes, most)
    if ahead.data.root != settings.data_dir:  # it is still to be prepared
        length = sum((ahead.data.root / name).stat().st_size for name in ahead.manifest.files)
        files = (*files, SpaceForecast(name="prepared data", size=length, exact=True))
    room = Room(own_memory(), free_bytes(), free_disk(settings.log_dir))
    kept, needed = kept_space(ahead.planned, sizes, most), sum(each.size for each in files)
    return files, obstacles(settings, processes, kept, needed, room)


def _sizes(probe: Probed, ahead: _Ahead) -> FileSizes:
    """The sizes of the probe's files; a record of a round grows with the clients in it, the manifest with the data."""
    share = max(len(each.work) for each in ahead.planned) / probe.settings.num_clients
    sizes = probe.sizes
    once = sizes.once + ahead.data.manifest.stat().st_size
    return replace(sizes, told=round(share * sizes.told), lines=round(share * sizes.lines), once=once)


def _processes(ahead: _Ahead, probe: Probed | None, shape: Shape | None) -> tuple[ProcessForecast, ...]:
    """By the probe; where there is none, by the formula."""
    settings = ahead.settings
    if probe is None:
        whole = shape.training_bytes(_longest(ahead)) if shape else None
        return (ProcessForecast(name="a process that trains", count=settings.client_processes, peak=whole),)
    a_token = shape.training_bytes(1) - shape.training_bytes(0) if shape else 0
    kept = _activations(ahead, probe, shape) if shape and settings.model_spec().lora_layers else 0
    return processes_forecast(ahead.planned, probe, settings.client_processes, a_token, kept)


def _activations(ahead: _Ahead, probe: Probed, shape: Shape) -> int:
    """The bytes of activations below the trained layers that a process keeps, beyond those of the probe."""

    def tokens(planned: tuple[PlannedRound, ...]) -> int:
        return sum(
            {(each.phase, client): work.tokens for each in planned for client, work in each.work.items()}.values()
        )

    processes = ahead.settings.client_processes
    kept = [_FLOAT * shape.width * tokens(planned) // processes for planned in (ahead.planned, probe.planned)]
    most = IN_MEMORY // processes
    return max(0, min(kept[0], most) - min(kept[1], most))


def _layout(settings: Settings) -> Layout:
    """A client's first round costs more by a share of its examples where the VA loss takes a reference, and where
    activations below the trained layers are kept.
    """
    keeps = settings.model_spec().lora_layers is not None
    scales = {phase: keeps or takes_reference(phase, settings.train_spec(phase).preference) for phase in PHASES}
    return Layout(settings.client_processes, settings.at_once > 1, scales)


def _probe(probe: Probed) -> Probe:
    steps = sum(work.steps for each in probe.planned for work in each.work.values())
    return Probe(clients=probe.settings.num_clients, steps=steps, seconds=probe.seconds)
