"""Requests of every kind: their common part, and their one form as JSON.

A request has a kind and a step of it. `fit` and `evaluate` have one step; a kind of several, such as a secure sum,
asks with one request class for each. Every class names the type of its answers, so that `Transport.ask` is typed:
`FitTask` is answered by `ClientUpdate`, `EvaluateTask` by `ClientEvaluation`.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self, TypeVar

from pydantic import JsonValue

from fccl import phases
from fccl.adapters.adapter import Adapter
from fccl.errors import UpdateRejected
from fccl.records.run import ClientState, ClientStatus
from fccl.specs import ClientId, Phase, PreferenceSpec, Value
from fccl.storage.reading import parse

Terms = dict[str, JsonValue]  # all that a request or a reply says beside its adapters; JSON
Answered_co = TypeVar("Answered_co", covariant=True)
Given = TypeVar("Given")  # an answer that is no failure
Said = TypeVar("Said", bound=Value)


@dataclass(frozen=True)
class ClientFailure:
    """A client that has no usable answer, and why. One that `declines` takes no part in the phase: that is no failure.

    `error` is what its work has raised, in the process where it did.
    """

    client_id: int
    reason: str
    declines: bool = False
    error: Exception | None = field(default=None, repr=False, compare=False)

    def __reduce__(self) -> tuple[type[ClientFailure], tuple[int, str, bool]]:
        """Without the exception, which need not survive a pickle."""
        return ClientFailure, (self.client_id, self.reason, self.declines)


class Reply(Value):
    """An answer that is a few figures: all of it travels as JSON. Answers to other kinds than `fit` derive from it."""

    client_id: ClientId


ReplyType = TypeVar("ReplyType", bound=Reply)
Reply_co = TypeVar("Reply_co", bound=Reply, covariant=True)


class Request(Protocol[Answered_co]):
    """One question to clients, the same for all of them. `Answered_co` is the type of an answer that is no failure."""

    kind: ClassVar[str]  # a word of small letters
    step: ClassVar[int]  # 0 for the first

    @property
    def run_id(self) -> str: ...

    @property
    def round(self) -> int: ...

    @property
    def phase(self) -> Phase: ...

    @property
    def answered_by(self) -> type[Answered_co]:
        """The type of an answer."""
        ...

    def terms(self) -> Terms:
        """The request as JSON, but for its adapters."""
        ...

    def adapters(self) -> Mapping[str, Adapter]:
        """The adapters that it speaks of, by the name under which `from_terms` takes them."""
        ...

    @classmethod
    def from_terms(cls, terms: Terms, adapters: Mapping[str, Adapter]) -> Self:
        """The request again. Raises `UpdateRejected` when anything is missing, malformed or too much."""
        ...


class ServedRequest(Request[Reply_co], Protocol[Reply_co]):
    """A request whose answers are `Reply`s: any transport carries it, whatever its kind."""


def spelt(request: object, terms: type[Value]) -> Terms:
    """A request's fields that `terms` names, as JSON. A field that has its default is left out."""
    said = terms(**{name: getattr(request, name) for name in terms.model_fields})
    return said.model_dump(mode="json", exclude_defaults=True)


def with_reference(adapter: Adapter, reference: Adapter | None) -> Mapping[str, Adapter]:
    """A task's adapters under the names that `from_terms` takes: `adapter`, and `reference` where there is one."""
    return {"adapter": adapter} | ({} if reference is None else {"reference": reference})


def adapter_names(phase: Phase, preference: PreferenceSpec) -> set[str]:
    """The names of the adapters of a task in this phase."""
    return {"adapter", "reference"} if phases.takes_reference(phase, preference) else {"adapter"}


def read_terms(terms: Terms, said: type[Said], what: str) -> Said:
    """Terms as a value, read as strictly as a file. Raises `UpdateRejected` with the first problems."""
    try:
        content = json.dumps(terms, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise UpdateRejected(f"{what} is not JSON: {error}") from error
    return parse(content, said, what)


def only(adapters: Mapping[str, Adapter], names: set[str], what: str) -> None:
    """Raises `UpdateRejected` unless the adapters have just these names."""
    if set(adapters) != names:
        raise UpdateRejected(f"{what} comes with adapters {sorted(adapters)}, not {sorted(names)}")


def require_reference(phase: Phase, preference: PreferenceSpec, reference: Adapter | None) -> None:
    """Raises `ValueError` unless a reference adapter is there exactly where the phase's loss takes one."""
    needs = phases.takes_reference(phase, preference)
    if needs != (reference is not None):
        raise ValueError(f"a {phase} task {'needs' if needs else 'has no'} reference adapter")


def require_loss(avg_loss: float, phase: Phase | str, preference: PreferenceSpec) -> None:
    """Raises `UpdateRejected` for a negative average loss where the phase's loss has none."""
    if avg_loss < 0 and not phases.may_be_negative(phase, preference):
        raise UpdateRejected(f"its avg_loss is {avg_loss:g}, and this loss is never negative")


def status_now(request: Request[Any], client_id: int, state: ClientState) -> ClientStatus:
    """A heartbeat of one client of this process, at work on this request, now."""
    return ClientStatus(
        client_id=client_id,
        state=state,
        run_id=request.run_id,
        round=request.round,
        phase=request.phase,
        pid=os.getpid(),
        host=socket.gethostname(),
        time=time.time(),
    )
