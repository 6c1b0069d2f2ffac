"""The answers of `fccl init`, each checked, and what they mean for `.env`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

from fccl import phases
from fccl.apps.init_file import Part
from fccl.config import Settings, load_settings
from fccl.data.prepare import count_examples
from fccl.display.words import plural
from fccl.errors import SettingsError
from fccl.library.narrow import begun, data_spec
from fccl.model.loading import load_model
from fccl.model.memory import Shape, own_memory, shape_of
from fccl.specs import SYNTHETIC, Phase

Tell = Callable[[str], None]

MACHINES = {
    "here": "all clients in one process of this machine",
    "apart": "each client a process of its own, on any machine that shares a folder",
}
WISHES = {
    "none": "nothing of the following",
    "signed": "everybody signs, and believes nobody else",
    "forget": "the server keeps no client's update after its round",
    "no-texts": "no text of the test split in the report",
}
_WISHED: dict[str, dict[str, object]] = {
    "signed": {"keys_dir": "keys"},
    "forget": {"keep_updates_mb": 0},
    "no-texts": {"gen_samples": 0},
}
_GB = 10**9


@dataclass(frozen=True)
class ModelAnswer:
    """A model that loads, with the settings that a run of it would begin with."""

    settings: Settings
    shape: Shape

    @property
    def batch_size(self) -> int:
        """The largest batch, at most the usual one, whose training is estimated to fit here; 1 where none does."""
        sizes = (self.settings.batch_size >> halved for halved in range(self.settings.batch_size.bit_length()))
        return next((size for size in sizes if self.needs(size) <= own_memory()), 1)

    def needs(self, batch_size: int) -> int:
        """Bytes, of FedVA's steps, whose rows are two a pair."""
        return self.shape.training_bytes(2 * batch_size * self.settings.max_length)


@dataclass(frozen=True)
class DataAnswer:
    """A source that can be read, and its distinct examples; None of pairs that are made."""

    name: str
    examples: int | None


@dataclass(frozen=True)
class Answers:
    """All five."""

    model: ModelAnswer
    sft: DataAnswer
    va: DataAnswer
    clients: int
    machine: str
    wishes: tuple[str, ...]

    def said(self, tell: Tell) -> Self:
        """The same, after a line on memory and one on what a client holds.

        Raises `SettingsError` for fewer examples than clients.
        """
        tell(f"  {self._memory()}")
        for phase, source in (("sft", self.sft), ("va", self.va)):
            if source.examples is not None and source.examples < self.clients:
                raise SettingsError(
                    f"{source.name}: {source.examples} {phases.of(phase).noun}s for {self.clients} clients",
                    hint="fewer clients, or more data",
                )
        return self

    def parts(self) -> Iterator[Part]:
        """The parts of `.env`."""
        found, shape = self.model.settings, self.model.shape
        own = {name: getattr(found, name) for name in ("sft_lr", "va_lr", "dpo_beta", "max_length")}
        about = f"The model: {shape.parameters:,} weights in {plural(shape.layers, 'layer')}."
        yield Part(about, {"model_name": found.model_name, **(own if found.preset == "pretrained" else {})})
        counts = f"The data: {_count(self.sft, 'sft')}, {_count(self.va, 'va')}."
        yield Part(counts, {"sft_data": self.sft.name, "va_data": self.va.name, "num_clients": self.clients})
        yield Part(f"The machine: {MACHINES[self.machine]}.\n{self._memory()}", self._machine())
        if self.wishes:
            yield Part(_PRIVACY, {key: value for wish in self.wishes for key, value in _WISHED[wish].items()})
        else:
            yield Part(_PRIVACY, {})

    def next_steps(self) -> Iterator[str]:
        """The commands to type next."""
        if self.machine == "here":
            yield "Next: fccl run"
            return
        yield "Next: fccl prepare" + "; fccl keys" * ("signed" in self.wishes) + "; fccl orchestrator"
        yield f"and for every client i from 0 to {self.clients - 1}: fccl client --client-id i"

    def _machine(self) -> dict[str, object]:
        size = self.model.batch_size
        smaller = {"batch_size": size} if size < self.model.settings.batch_size else {}
        return {**smaller, **({"exchange_dir": "exchange"} if self.machine == "apart" else {})}

    def _memory(self) -> str:
        size, here = self.model.batch_size, own_memory()
        needs = self.model.needs(size)
        takes = f"Training takes at most about {needs / _GB:.1f} GB with BATCH_SIZE={size}"
        said = f"{takes}; this machine has {here / _GB:.1f}."
        return said if needs <= here else f"{said} It may not fit: a smaller MAX_LENGTH or model needs less."


_PRIVACY = """\
Privacy: training data stays in the clients' folders; updates and figures go to the server.
Files have the modes that umask leaves: `umask 077` before a command makes them yours alone.
Private keys, kept updates and the clients' state are always private."""


def checked_model(name: str, tell: Tell) -> ModelAnswer:
    """Loads it. Raises `ModelError`, and `SettingsError` for a name that is none."""
    settings = begun(load_settings({"model_name": name}), tell)
    shape = shape_of(load_model(settings.model_spec()))
    tell(f"  It loads: {shape.parameters:,} weights, {settings.max_length:,} tokens of prompt and response.")
    return ModelAnswer(settings, shape)


def checked_data(phase: Phase, name: str, tell: Tell) -> DataAnswer:
    """Reads it. Raises `DataError`, and `SettingsError` for a name that is none."""
    spec = data_spec(load_settings({f"{phase}_data": name}))
    found = DataAnswer(name, None if phase == "va" and name == SYNTHETIC else count_examples(spec, phase))
    tell(f"  {_count(found, phase)}.")
    return found


def machine_of(text: str) -> str:
    """Raises `SettingsError` for one that is not among `MACHINES`."""
    return _known(text, MACHINES)


def wishes_of(text: str, machine: str) -> tuple[str, ...]:
    """The wishes in the order of `WISHES`; none of them where the text says so.

    Raises `SettingsError` for one that there is not, and for signatures where nothing is sent.
    """
    named = {_known(part.strip(), WISHES) for part in text.split(",") if part.strip()} - {"none"}
    if "signed" in named and machine == "here":
        raise SettingsError("signed: with all clients in one process nothing is sent", hint="leave it out")
    return tuple(wish for wish in WISHES if wish in named)


def _known(text: str, names: dict[str, str]) -> str:
    if text not in names:
        raise SettingsError(f"{text!r}: allowed is one of {', '.join(names)}")
    return text


def _count(source: DataAnswer, phase: Phase) -> str:
    noun = f"{phases.of(phase).noun}s"
    return f"{noun} made from the instructions" if source.examples is None else f"{source.examples:,} {noun}"
