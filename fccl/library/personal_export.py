"""A client's personal adapter as others load it: from its private folder alone, without the run's records."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCardData

from fccl import phases
from fccl.adapters.adapter import Adapter, load_adapter
from fccl.display.plain_text import printable
from fccl.errors import FederationError
from fccl.model.base_model import public_name
from fccl.model.export import save_merged, save_peft
from fccl.model.language_model import LanguageModel
from fccl.model.loading import Models
from fccl.paths import PersonalPaths, StatePaths, run_digits
from fccl.records.personal import PersonalRecord
from fccl.specs import PHASES, Phase
from fccl.storage.reading import read_value

_HINT = "it is made by a run with PERSONALIZE, where the client runs; --state-dir says where its folder lies"


def personal_record(state: Path, client_id: int, phase: Phase | None = None, run_id: str = "") -> PersonalRecord:
    """The record of a client's personal adapter: of the run named, or the last one; of the phase, or VA's where there
    is one.

    Raises `FederationError` when there is none.
    """
    paths = StatePaths(state).personal(client_id)
    newest = sorted(paths.records(), key=lambda path: path.stat().st_mtime_ns)
    found = [record for path in newest if (record := read_value(path, PersonalRecord)) is not None]
    wanted = run_id or (found[-1].run_id if found else "")
    by_phase = {record.phase: record for record in found if record.run_id == wanted}
    for each in (phase,) if phase else reversed(PHASES):
        if each in by_phase:
            return by_phase[each]
    of_run = f" of run {printable(run_id, 100)}" if run_id else ""
    of_phase = f" of {phases.of(phase).title}" if phase else ""
    raise FederationError(f"client {client_id} has no personal adapter{of_run}{of_phase} in {paths.root}", hint=_HINT)


def write_personal(state: Path, record: PersonalRecord, out: Path, merge: bool = False) -> Path:
    """Write a personal adapter in PEFT's format, or with `merge` folded into the base model. Returns the folder.

    Raises `AdapterError` when the file is damaged, `ModelError` when the model cannot be had, `StorageError`.
    """
    adapter = _adapter(StatePaths(state).personal(record.client_id), record)
    model = Models().of(record.model)
    write, library = (save_merged, "transformers") if merge else (save_peft, "peft")
    write(model, adapter, out, _card(record, model, library))
    return out


def _adapter(paths: PersonalPaths, record: PersonalRecord) -> Adapter:
    path = paths.adapter(run_digits(record.run_id), record.phase, record.round)
    found = load_adapter(path)
    if found.sha256 != record.adapter_sha256:
        raise FederationError(f"{path} is not the adapter that its record names", hint="run the round again")
    return found


def _card(record: PersonalRecord, model: LanguageModel, library: str) -> str:
    name = public_name(model.made_of[0])
    base = name if name and not name.startswith("builtin:") else None
    head = ModelCardData(base_model=base, library_name=library, tags=["lora", "federated-learning", "fccl"])
    spec, kind = record.model, record.personal.kind
    pulled = f", λ = {record.personal.pull:g}" if kind == "ditto" else ""
    return (
        f"---\n{head.to_yaml()}\n---\n\n# A personal LoRA adapter of client {record.client_id}\n\n"
        f"Made by {kind}{pulled} beside run {printable(record.run_id)}, after round {record.round + 1} "
        f"({phases.of(record.phase).title}). It was trained on this client's own examples and has left it for nobody.\n"
        f"Rank {spec.lora_r}, alpha {spec.lora_alpha:g}, on {printable(spec.name)}.\n"
    )
