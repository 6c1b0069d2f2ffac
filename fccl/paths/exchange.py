"""The exchange directory: its files by name, and names by what they say."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from fccl.paths.names import ADAPTER, CODED, of_earlier_versions


@dataclass(frozen=True)
class ExchangeName:
    """The parts of a file name in the exchange directory. `kind` is the method of `ExchangePaths` that formats it."""

    kind: str
    round: int | None = None
    client: int | None = None


_KEPT_NAME = 100  # bytes
_INSIDE_A_CHARACTER = bytes(range(0x80, 0xC0))  # of UTF-8
_ADAPTER = "[.](?:safetensors|pt)"
_CODED = "[.](?:safetensors|pt|coded)"
_NUMBER = "(0|[1-9][0-9]{0,8})"
_EXCHANGE_NAMES = {  # by the first word: what it is, its pattern, what its numbers are
    "phase": ("phase", re.compile(f"phase_{_NUMBER}[.]txt"), ("round",)),
    "global": ("global_adapter", re.compile(f"global_round_{_NUMBER}{_CODED}"), ("round",)),
    "task": ("task", re.compile(f"task_round_{_NUMBER}[.]json"), ("round",)),
    "client": ("update", re.compile(f"client_{_NUMBER}_round_{_NUMBER}{_CODED}"), ("client", "round")),
    "contrib": ("contribution", re.compile(f"contrib_client_{_NUMBER}_round_{_NUMBER}[.]json"), ("client", "round")),
    "done": ("flag", re.compile(f"done_{_NUMBER}_{_NUMBER}[.]flag"), ("client", "round")),
    "member": ("member", re.compile(f"member_{_NUMBER}[.]json"), ("client",)),
    "status": ("status", re.compile(f"status_{_NUMBER}[.]json"), ("client",)),
    "reference": ("reference", re.compile(f"reference_[0-9a-f]{{16}}{_ADAPTER}"), ()),
    "correction": ("correction", re.compile(f"correction_[0-9a-f]{{16}}{_ADAPTER}"), ()),
    "request.json": ("request", re.compile("request[.]json"), ()),
    "adapter": ("adapter", re.compile(f"adapter_[0-9a-f]{{16}}{_ADAPTER}"), ()),
    "reply": ("reply", re.compile(f"reply_{_NUMBER}_{_NUMBER}_[a-z]{{1,20}}_[0-9]{{1,2}}[.]json"), ("client", "round")),
    "control": ("control", re.compile(f"control_client_{_NUMBER}_round_{_NUMBER}{_ADAPTER}"), ("client", "round")),
}


@dataclass(frozen=True)
class ExchangePaths:
    """`EXCHANGE_DIR`: what server and clients write for each other.

    `docs/protocol.md` says who writes what, and in which order.
    """

    root: Path

    def phase(self, round_number: int) -> Path:
        return self.root / f"phase_{round_number}.txt"

    def global_adapter(self, round_number: int) -> Path:
        return self.root / f"global_round_{round_number}{ADAPTER}"

    def reference(self, sha256: str) -> Path:
        """The reference policy of DPO, named by the hash of the file, so it travels once and no round can change it."""
        return self.root / f"reference_{sha256[:16]}{ADAPTER}"

    def correction(self, sha256: str) -> Path:
        """The correction that SCAFFOLD's clients add to their gradients, named by the hash of the file: clients that
        are told the same share one.
        """
        return self.root / f"correction_{sha256[:16]}{ADAPTER}"

    @property
    def request(self) -> Path:
        """The one open request of another kind than `fit`; it is open while this file is there."""
        return self.root / "request.json"

    def adapter(self, sha256: str) -> Path:
        """An adapter that such a request speaks of, named by the hash of the file."""
        return self.root / f"adapter_{sha256[:16]}{ADAPTER}"

    def reply(self, client_id: int, round_number: int, kind: str, step: int) -> Path:
        """A client's answer to such a request: all of it in one file."""
        return self.root / f"reply_{client_id}_{round_number}_{kind}_{step}.json"

    def task(self, round_number: int) -> Path:
        return self.root / f"task_round_{round_number}.json"

    def update(self, client_id: int, round_number: int) -> Path:
        return self.root / f"client_{client_id}_round_{round_number}{ADAPTER}"

    def original_global(self, round_number: int) -> Path:
        """The global adapter once more, for peers that know only the original files."""
        return of_earlier_versions(self.global_adapter(round_number))

    def original_update(self, client_id: int, round_number: int) -> Path:
        """The update of such a peer."""
        return of_earlier_versions(self.update(client_id, round_number))

    def coded_global(self, round_number: int) -> Path:
        """The global adapter in few bytes, for clients that have the one before it."""
        return self.global_adapter(round_number).with_suffix(CODED)

    def coded_update(self, client_id: int, round_number: int) -> Path:
        """An update in the place of the whole one, where the task asks for a codec."""
        return self.update(client_id, round_number).with_suffix(CODED)

    def control(self, client_id: int, round_number: int) -> Path:
        """SCAFFOLD's c_i, beside the update."""
        return self.root / f"control_client_{client_id}_round_{round_number}{ADAPTER}"

    def contribution(self, client_id: int, round_number: int) -> Path:
        return self.root / f"contrib_client_{client_id}_round_{round_number}.json"

    def flag(self, client_id: int, round_number: int) -> Path:
        return self.root / f"done_{client_id}_{round_number}.flag"

    def member(self, client_id: int) -> Path:
        """A client's statement that it joins or leaves an open federation; it commits itself."""
        return self.root / f"member_{client_id}.json"

    def status(self, client_id: int) -> Path:
        return self.root / f"status_{client_id}.json"

    def answer(self, client_id: int, round_number: int) -> tuple[Path, Path, Path]:
        """The three files of every answer, in the order in which they are written."""
        return (
            self.update(client_id, round_number),
            self.contribution(client_id, round_number),
            self.flag(client_id, round_number),
        )

    def taken_away(self, client_id: int, round_number: int) -> tuple[Path, ...]:
        """All files that an answer may have, in the order in which they are taken away.

        The flag comes last: while it is there the client has answered, so its next answer never meets the removal of
        this one.
        """
        return self.original_update(client_id, round_number), *self.of_answer(client_id, round_number)

    def of_answer(self, client_id: int, round_number: int) -> tuple[Path, ...]:
        """All files that an answer of this version may have, the flag last."""
        others = self.control(client_id, round_number), self.coded_update(client_id, round_number)
        return *others, *self.answer(client_id, round_number)

    @staticmethod
    def is_half_written(text: str, client_id: int | None = None) -> bool:
        """Whether a temporary file of this name is for a file of this client; without one, of the server."""
        if client_id is None:
            return text.startswith(
                (".global_", ".task_", ".phase_", ".reference_", ".correction_", ".request.", ".adapter_")
            )
        kinds = ("client", "contrib_client", "control_client", "done", "reply", "status", "member")
        return text.startswith(tuple(f".{kind}_{client_id}{end}" for kind in kinds for end in "_."))

    @property
    def bell(self) -> Path:
        """A folder that the server touches when a round begins: waiting clients watch it, and not each other's
        files."""
        return self.root / "bell"

    @property
    def rejected(self) -> Path:
        """Files that were refused, and why: `rejection` beside them."""
        return self.root / "rejected"

    def rejection(self, stamp: str) -> Path:
        return self.rejected / f"{stamp}_reason.json"

    def kept_as(self, stamp: str, name: str) -> Path:
        """Where a refused file goes.

        Of a long name the end is kept: a name has at most 255 bytes, and fewer on some file systems.
        """
        end = os.fsencode(name)[-_KEPT_NAME:]
        return (
            self.rejected / f"{stamp}_{os.fsdecode(end.lstrip(_INSIDE_A_CHARACTER) if len(end) == _KEPT_NAME else end)}"
        )

    @property
    def server_lock(self) -> Path:
        return self.root / "orchestrator.lock"

    def client_lock(self, client_id: int) -> Path:
        return self.root / f"client_{client_id}.lock"

    @staticmethod
    def name(text: str) -> ExchangeName | None:
        """The parts of a file name; None when it is not one of the protocol."""
        kind, pattern, fields = _EXCHANGE_NAMES.get(text.split("_", 1)[0], ("", None, ()))
        found = pattern.fullmatch(text) if pattern else None
        return ExchangeName(kind, **dict(zip(fields, map(int, found.groups()), strict=True))) if found else None
