"""The JSON files of the exchange directory as values, and what a signature of one is over."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AliasChoices, ConfigDict, Field, JsonValue, StringConstraints, model_validator

from fccl import phases
from fccl.keys import Keys, PublicKeys
from fccl.messages import FitSettings, Terms
from fccl.paths import ExchangePaths
from fccl.privacy.cohort import MaskedBy
from fccl.records.run import Contribution, TrainingReport
from fccl.specs import (
    ClientId,
    LateUpdates,
    Loss,
    Phase,
    Rank,
    Round,
    RunId,
    Samples,
    Seconds,
    SignedLoss,
    Time,
    Value,
    exactly,
)

MAX_JSON_BYTES = 65_536  # of a client's files
MAX_TASK_BYTES = 1_048_576  # of the server's: it names every selected client
MAX_ADAPTER_BYTES = 2**31
MAX_REASON = 500  # characters
_TRAINING_TIME = ("training_time", "train_time", "seconds", "duration")

VERSION = 2  # of the protocol

Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
Kind = Annotated[str, StringConstraints(pattern="^[a-z]{1,20}$")]  # of a request
Step = Annotated[int, Field(ge=0, le=99)]
Role = Annotated[str, StringConstraints(pattern="^[a-z_]{1,40}$")]  # of an adapter in a request
Message = TypeVar("Message", bound="_Signed")


class AdapterFile(Value):
    """The description of an adapter's file in a task or a contribution: enough to know it before a byte of it is read,
    and whether it is the one after.
    """

    sha256: Sha256
    length: int = Field(ge=1, le=MAX_ADAPTER_BYTES)  # bytes

    @classmethod
    def of(cls, content: bytes) -> Self:
        """The description of a file with this content."""
        return cls(sha256=hashlib.sha256(content).hexdigest(), length=len(content))


class _Signed(Value):
    """A file that its writer signs, when there are keys.

    A field that has a default is written only where it says something else. So what is added to the protocol changes no
    file, and no signature, that does not use it; and a reader that does not know what is used refuses the file, since a
    field too many is an error.
    """

    version: Annotated[int, exactly(VERSION)]
    run_id: RunId
    round: Round
    signature: str = Field(default="", max_length=200)

    def written(self) -> bytes:
        """The content of the file."""
        return self.model_dump_json(exclude_defaults=True).encode() + b"\n"

    def signed_content(self) -> bytes:
        """The kind of file and all it says but the signature, in one spelling (JSON, keys sorted, no spaces)."""
        said = self.model_dump(mode="json", exclude={"signature"}, exclude_defaults=True)
        return (
            f"fccl {type(self).__name__} {VERSION}\n{json.dumps(said, sort_keys=True, separators=(',', ':'))}".encode()
        )

    @property
    def content_sha256(self) -> str:
        """The SHA-256 of its signed content: the same with and without a signature."""
        return hashlib.sha256(self.signed_content()).hexdigest()

    def signed(self: Message, keys: Keys | None) -> Message:
        """The same, signed; as it is when there are no keys."""
        return self if keys is None else self.model_copy(update={"signature": keys.sign(self.signed_content())})

    def is_of_server(self, public: PublicKeys) -> bool:
        return public.is_of_server(self.signed_content(), self.signature)

    def was_of_client(self, client_id: int, public: PublicKeys) -> bool:
        """Whether this client has signed it, also with a key that is revoked by now."""
        return public.was_of_client(client_id, self.signed_content(), self.signature)

    def doubt(self, client_id: int, public: PublicKeys) -> str:
        """Why this is not the client's word; empty where it is."""
        if client_id in public.revoked:
            return f"client {client_id}'s key is revoked"
        if public.is_of_client(client_id, self.signed_content(), self.signature):
            return ""
        return (
            f"the signature is not client {client_id}'s" if self.signature else f"client {client_id} has not signed it"
        )


class FitWork(FitSettings):
    """The work of the selected clients in a round, and the files that it takes."""

    clients: tuple[ClientId, ...]
    reference: AdapterFile | None = None  # `reference_<16 digits of its hash>.safetensors`: the reference policy
    corrections: tuple[AdapterFile, ...] | None = (
        None  # SCAFFOLD: `correction_<16 digits>.safetensors` of each of the clients
    )
    open: bool = False  # clients may join and leave between rounds
    late: LateUpdates = "drop"  # next: an answer counts too while the round after is open, in the same phase
    coded: AdapterFile | None = None  # `global_round_R.coded`: the global adapter in few bytes

    @classmethod
    def of(cls, terms: Terms, **files: object) -> Self:
        """The work of a task with these terms, for these clients, with these files."""
        return cls.model_validate({name: terms[name] for name in FitSettings.model_fields if name in terms} | files)

    def settings(self) -> Terms:
        """The part of the work that stands in the task's terms."""
        return self.model_dump(mode="json", include=set(FitSettings.model_fields), exclude_defaults=True)

    @model_validator(mode="after")
    def _has_a_correction_for_everybody(self) -> Self:
        if self.corrections is not None and len(self.corrections) != len(self.clients):
            raise ValueError("there are not as many corrections as clients")
        return self

    def correction_of(self, client_id: int) -> AdapterFile | None:
        """The file of what this client adds to its gradients."""
        return None if self.corrections is None else self.corrections[self.clients.index(client_id)]

    def named(self, paths: ExchangePaths) -> set[Path]:
        """The files that are named by their hashes here."""
        references = {paths.reference(self.reference.sha256)} if self.reference else set()
        return references | {paths.correction(correction.sha256) for correction in self.corrections or ()}


class TaskFile(_Signed):
    """`task_round_R.json`: all that `phase_R.txt` and `global_round_R.safetensors` leave unsaid.

    `work` is missing exactly when the run is done.
    """

    run_created: Time  # seconds since 1970 by the server's clock: which of two runs is the older one
    phase: Literal["sft", "va", "done"]
    adapter: AdapterFile  # `global_round_R.safetensors`
    work: FitWork | None = None
    revoked: tuple[ClientId, ...] = ()  # clients whose keys were revoked when the round was opened

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if (self.phase == "done") != (self.work is None):
            raise ValueError("a done task has no work, every other has")
        if self.work:
            takes = phases.takes_reference(self.phase, self.work.train.preference)
            if takes != (self.work.reference is not None):
                raise ValueError("a task whose preference loss takes a reference, and no other, names one")
        return self

    def terms(self) -> Terms:
        """The terms of the `FitTask`; of none where the run is done."""
        header: Terms = {"kind": "fit", "step": 0, "run_id": self.run_id, "round": self.round, "phase": self.phase}
        return header | (self.work.settings() if self.work else {})

    def still_counts(self, newest: TaskFile, is_update: bool) -> bool:
        """Whether an answer to this task counts while that round is the newest: this one, and for an update the next
        one of its phase where late updates are taken.
        """
        if (newest.run_id, newest.phase) != (self.run_id, self.phase):
            return False
        takes_late = self.work is not None and self.work.late == "next" and is_update
        return newest.round == self.round or (takes_late and newest.round == self.round + 1)


class RequestFile(_Signed):
    """`request.json`: a request of another kind than `fit`."""

    run_created: Time
    kind: Kind
    step: Step
    clients: tuple[ClientId, ...]
    terms: dict[str, JsonValue]
    adapters: dict[Role, AdapterFile] = Field(default={}, max_length=16)  # each `adapter_<16 digits>.safetensors`


class ReplyFile(_Signed):
    """`reply_i_R_KIND_STEP.json`: a client's answer to such a request, or why it has none."""

    client_id: ClientId
    kind: Kind
    step: Step
    request_sha256: Sha256  # of the `request.json` that it answers, without its signature
    reply: dict[str, JsonValue] | None = None
    error: str = Field(default="", max_length=MAX_REASON)

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if (self.reply is None) == (not self.error):
            raise ValueError("an answer is a reply or an error")
        return self


class _Answer(_Signed):
    """The part that both kinds of answer share: whose it is, and to what."""

    phase: Phase
    client_id: ClientId
    base_sha256: Sha256  # of the `global_round_R.safetensors` that the client began from


class UpdateFile(_Answer):
    """`contrib_client_i_round_R.json` beside an update."""

    adapter: AdapterFile  # `client_i_round_R.safetensors`, or `.coded` where the task asks for a codec
    lora_r: Rank | None = None  # its rank, where it is not the federation's
    control: AdapterFile | None = None  # `control_client_i_round_R.safetensors`, where the task has corrections
    avg_loss: SignedLoss
    num_samples: Samples
    training_time: Seconds
    report: TrainingReport
    masked: MaskedBy | None = None  # where the task asks for a secure sum

    def contribution(self) -> Contribution:
        return Contribution(avg_loss=self.avg_loss, num_samples=self.num_samples, seconds=self.training_time)

    def is_masked_for(self, task: TaskFile) -> bool:
        """Whether it is for this very attempt at the round; two without a secure sum are one."""
        asked = task.work.secure if task.work else None
        return (self.masked and self.masked.nonce) == (asked and asked.cohort.nonce)


class FailureFile(_Answer):
    """`contrib_client_i_round_R.json` when the training failed, or the client takes no part in the phase: there is no
    update.
    """

    error: str = Field(min_length=1, max_length=MAX_REASON)
    declines: bool = False


class MemberFile(_Signed):
    """`member_i.json`: the client joins an open federation, or leaves it."""

    client_id: ClientId
    move: Literal["join", "leave"]
    time: Time  # by the client's clock; of two statements the later counts


class OriginalContribution(Value):
    """The same file by a peer that knows only the original fields. Whatever else it says is passed over."""

    model_config = ConfigDict(extra="ignore")

    avg_loss: Loss
    num_samples: Samples
    training_time: Seconds | None = Field(default=None, validation_alias=AliasChoices(*_TRAINING_TIME))
    client: ClientId | None = Field(default=None, validation_alias=AliasChoices("client", "client_id"))
    round: Round | None = None
    phase: str | None = None

    def contribution(self, seconds: float) -> Contribution:
        """`seconds` is what it took, where the peer does not say."""
        took = seconds if self.training_time is None else self.training_time
        return Contribution(avg_loss=self.avg_loss, num_samples=self.num_samples, seconds=took)
