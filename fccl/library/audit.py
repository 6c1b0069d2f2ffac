"""`audited`: what an attacker learns from what a federation releases, in a federation that is run for it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fccl.adapters.adapter import Adapter, load_adapter
from fccl.config import Settings, group_of
from fccl.data.shards import ClientShard, load_shard
from fccl.display.words import plural
from fccl.errors import DataError, FederationError, SettingsError
from fccl.federation.run_evaluation import own_data
from fccl.federation.run_folder import RunFolder
from fccl.library.attacks import Attacker, Candidates
from fccl.library.borrowed_data import borrowed_data
from fccl.library.canaries import FEWEST_IN_ALL, PLANTED, UNUSED, AuditData, audit_data, different
from fccl.library.forgetting import Forgetting
from fccl.library.inner_run import inner_run, inner_settings
from fccl.library.narrow import data_spec
from fccl.library.own_rules import CHOOSING
from fccl.library.past_run import AtWork, past_run
from fccl.library.sample import write_sample
from fccl.model.language_model import LanguageModel, cpu_threads
from fccl.model.loading import Models
from fccl.paths import DataPaths, LogPaths
from fccl.records.audit import Attack, Audit, AuditedRun
from fccl.records.journal import read_rounds

_CODECS = ("update_codec", "topk_share")  # settings that change what is released, beside those of the group "privacy"
_MORE = "fewer clients (NUM_CLIENTS), or more data (MAX_SFT_EXAMPLES): no client has enough"
Tell = Callable[[str], None]


def protecting() -> frozenset[str]:
    """The settings that change what a federation releases: all of the group privacy, and the codec."""
    fields = Settings.model_fields
    return frozenset({name for name, field in fields.items() if group_of(field) == "privacy"} | set(_CODECS))


def protections(settings: Settings) -> dict[str, str]:
    """The settings that protect, where they are not as usual: `NAME` to value."""
    usual = {name: field.default for name, field in Settings.model_fields.items() if name in protecting()}
    return {name: str(value) for name, default in usual.items() if (value := getattr(settings, name)) != default}


def audited(
    settings: Settings,
    models: Models,
    tell: Tell,
    client_id: int | None = None,
    beside: Sequence[Settings] = (),
    forget: bool = False,
) -> Audit:
    """The audit of one client, the largest where none is named: its federation without protection, and where the
    settings protect once more with it. Each of the settings `beside` is one federation more, protected otherwise. With
    `forget` the client is taken out of the first, as `fccl forget` does, and what is left of it is attacked too.

    Nothing of these federations stays: their adapters have learnt canaries. Raises `SettingsError` without SFT rounds,
    `DataError` where the client has too few examples, and what a run with these settings raises.
    """
    _require_auditable(settings, forget)
    protected = [each for each in (settings, *beside) if protections(each)]
    with borrowed_data(settings) as (data, manifest), tempfile.TemporaryDirectory(prefix="fccl-audit-") as name:
        shards = [load_shard(data, client, manifest) for client in range(manifest.spec.partition.num_clients)]
        chosen = _chosen(shards, client_id)
        parted = audit_data(chosen, settings.seed)  # which says what is too few before anything is trained
        model = models.of(settings.model_spec())
        trained = [parted.shard if shard is chosen else shard for shard in shards]
        root = Path(name)
        first = _inner(_unprotected(settings), root, "none")
        write_sample(data, manifest, data_spec(first), trained, DataPaths(root / "data"))
        runs = [_run(first, model, models, parted, {}, tell)]
        runs += _taken_out(first, model, models, parted, tell) if forget else ()
        inner = [(_inner(each, root, f"protected_{place}"), protections(each)) for place, each in enumerate(protected)]
        runs += [_run(each, model, models, parted, protects, tell) for each, protects in inner]
    return Audit(
        created=time.time(),
        client=chosen.client_id,
        canaries=PLANTED,
        unused=UNUSED,
        rounds=settings.round_plan().rounds_of("sft"),
        settings={name: str(value) for name, value in settings.model_dump().items()},
        runs=tuple(runs),
    )


def _unprotected(settings: Settings) -> Settings:
    usual = {name: type(settings).model_fields[name].default for name in protections(settings)}
    return settings.model_copy(update=usual)


def _require_auditable(settings: Settings, forget: bool) -> None:
    """Raises `SettingsError` without SFT rounds, and where nobody would be left."""
    if not settings.round_plan().rounds_of("sft"):
        raise SettingsError("SFT_ROUNDS=0: canaries are instructions", hint="an audit needs SFT rounds")
    if forget and settings.num_clients < 2:
        raise SettingsError("--forget: without its one client there is no federation", hint="NUM_CLIENTS=2, or more")


def _chosen(shards: Sequence[ClientShard], client_id: int | None) -> ClientShard:
    """The client that is audited. Raises `SettingsError` for one that is not there, `DataError` with too few examples,
    with the client that has more as a hint.
    """
    largest = max(shards, key=lambda shard: len(shard.sft))
    if client_id is not None and client_id not in range(len(shards)):
        raise SettingsError(f"--client {client_id}: there is no such client", hint=f"0 to {len(shards) - 1} are there")
    chosen = largest if client_id is None else shards[client_id]
    if (count := different(chosen)) < FEWEST_IN_ALL:
        enough = different(largest) >= FEWEST_IN_ALL
        raise DataError(
            f"client {chosen.client_id} has {plural(count, 'different instruction')}; an audit needs {FEWEST_IN_ALL}, "
            "half of them to be held out",
            hint=f"--client {largest.client_id} has {different(largest)}" if enough else _MORE,
        )
    return chosen


def _inner(settings: Settings, root: Path, name: str) -> Settings:
    """The settings of an audit's federation: SFT alone, all of its rounds, all updates kept."""
    changes = {
        "sft_rounds": settings.round_plan().rounds_of("sft"),
        "va_rounds": 0,
        "patience": 0,
        "evaluate": False,
        "personalize": "off",
    }
    return inner_settings(settings, root, name).model_copy(update=changes)


def _run(
    settings: Settings, model: LanguageModel, models: Models, data: AuditData, protects: dict[str, str], tell: Tell
) -> AuditedRun:
    """One federation, and the attacks on it."""
    said = ", ".join(f"{name.upper()}={value}" for name, value in protects.items())
    rounds = plural(settings.round_plan().total_rounds, "round")
    tell(f"Training {rounds} {f'with {said}' if said else 'without protection'} ...")
    folder = RunFolder.at(settings.log_dir)
    with inner_run(settings, folder, model, models) as (work, transport):
        for _ in work.run.rounds(transport):
            pass
        work.run.finish(transport)
    records = read_rounds(folder.paths)
    tell("Attacking what it released ...")
    with cpu_threads(settings.threads):
        attacker = _attacker(settings, model, folder.paths, data)
        found = [attacker.released(load_adapter(folder.paths.global_final))]
        took_part = [each.round for each in records if data.shard.client_id in each.clients]
        tried = list(attacker.updates(folder.paths, data.shard.client_id, sorted({*took_part[:1], *took_part[-1:]})))
    closed = [each for each in tried if isinstance(each, str)]
    closed += ["updates: masked, and known by their sum alone"] if settings.secure_aggregation else []
    validation = records[-1].validation
    return AuditedRun(
        name=said or "none",
        settings=protects,
        attacks=(*found, *(each for each in tried if isinstance(each, Attack))),
        closed=tuple(closed),
        loss=validation.loss if validation else None,
    )


def _taken_out(
    settings: Settings, model: LanguageModel, models: Models, data: AuditData, tell: Tell
) -> Iterator[AuditedRun]:
    """The federation of these settings, which is done, without the audited client, and the attack on its adapter.

    Nothing where it was never drawn, or the rule needs as many clients as there are: what was found stays.
    """
    client, folder = data.shard.client_id, DataPaths(settings.data_dir)
    past = past_run(settings.log_dir, "", "change", {name: getattr(settings, name) for name in CHOOSING})
    tell(f"Taking client {client} out: its rounds are trained anew without it ...")
    work = AtWork(past, past.settings, models, folder, own_data(folder, past.info))
    try:
        _, adapter = Forgetting(work, client).run()
    except FederationError as error:
        tell(f"Client {client} is not taken out: {error}")
        return
    tell("Attacking what is left ...")
    with cpu_threads(settings.threads):
        found = _attacker(settings, model, past.logs, data).released(adapter)
    yield AuditedRun(name=f"client {client} taken out", attacks=(found,))


def _attacker(settings: Settings, model: LanguageModel, logs: LogPaths, data: AuditData) -> Attacker:
    return Attacker(model, Candidates.of(model, data), _start(settings, model, logs), settings.eval_batch_size)


def _start(settings: Settings, model: LanguageModel, logs: LogPaths) -> Adapter:
    """The adapter that the federation began with."""
    return load_adapter(logs.start) if logs.start.is_file() else model.initial_adapter(settings.seed)
