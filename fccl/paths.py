"""Every file name of the system, formatted here and nowhere else."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

ADAPTER = ".safetensors"  # how the names of adapters' files end
_LONGEST_NAME, _LONGEST_PATH, _DEEPEST = 255, 4096, 256  # bytes, bytes, names; what Linux takes at most, and Python's recursion in mkdir


def of_earlier_versions(adapter: Path) -> Path:
    """The file in which an earlier version, or an original peer, has the adapter that belongs in this one."""
    return adapter.with_suffix(".pt")


def is_usable(path: str | Path) -> bool:
    """Whether a file could have this path and a record could hold it. What meets another fails in a way of its own each time."""
    try:
        encoded = str(path).encode()
    except UnicodeEncodeError:  # bytes that are not UTF-8
        return False
    names = encoded.split(b"/")
    return b"\0" not in encoded and len(encoded) < _LONGEST_PATH and len(names) <= _DEEPEST and max(map(len, names)) <= _LONGEST_NAME


@dataclass(frozen=True)
class DataPaths:
    """`DATA_DIR`: what `fccl prepare` writes. `server/` is never shown to a client, `clients/` never to the evaluation."""

    root: Path

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def picture(self) -> Path:
        return self.root / "topics_by_client.png"

    @property
    def lock(self) -> Path:
        """Shared by all who use the data; who prepares it anew must have it alone."""
        return self.root / "data.lock"

    @property
    def clients(self) -> Path:
        return self.root / "clients"

    @property
    def server(self) -> Path:
        return self.root / "server"

    def shard(self, client_id: int, phase: str) -> Path:
        return self.clients / f"client_{client_id}_{phase}.jsonl"

    def held_out(self, split: str, phase: str) -> Path:
        """`split` is `validation` or `test`."""
        return self.server / f"{split}_{phase}.jsonl"


@dataclass(frozen=True)
class LogPaths:
    """`LOG_DIR`: what a run leaves behind."""

    root: Path

    @property
    def run(self) -> Path:
        """What the run is: its id, its settings, the hash of its data."""
        return self.root / "run.json"

    @property
    def lock(self) -> Path:
        """Held while a run is at work in this folder."""
        return self.root / "run.lock"

    @property
    def manifest(self) -> Path:
        """A copy of the data's manifest: the run's own, whatever is prepared later."""
        return self.root / "manifest.json"

    @property
    def progress(self) -> Path:
        return self.root / "progress.jsonl"

    @property
    def client_metrics(self) -> Path:
        return self.root / "client_metrics.jsonl"

    @property
    def global_sft(self) -> Path:
        """The global adapter after the last SFT round: the reference policy of every VA round."""
        return self.root / f"global_sft{ADAPTER}"

    @property
    def global_final(self) -> Path:
        return self.root / f"global_final{ADAPTER}"

    @property
    def adapter(self) -> Path:
        """The final adapter in PEFT's own format."""
        return self.root / "adapter"

    @property
    def state(self) -> Path:
        """Which round is complete; written last, so it commits the round."""
        return self.root / "state.json"

    def global_adapter(self, next_round: int) -> Path:
        """The global adapter that `next_round` starts from."""
        return self.root / "rounds" / f"global_round_{next_round}{ADAPTER}"

    def server_state(self, next_round: int) -> Path:
        """What the aggregation rule carries into `next_round`, when it carries anything."""
        return self.root / "rounds" / f"server_state_{next_round}{ADAPTER}"

    def control(self, client_id: int, sha256: str) -> Path:
        """SCAFFOLD's c_i, named by the hash of the file, so that no round writes over what another may need."""
        return self.controls / f"control_{client_id}_{sha256[:16]}{ADAPTER}"

    @property
    def controls(self) -> Path:
        """SCAFFOLD's control variates, of every client its last."""
        return self.root / "controls"

    def client_adapter(self, client_id: int, phase: str) -> Path:
        """The last update of one client in one phase."""
        return self.root / "clients" / f"client_{client_id}_{phase}{ADAPTER}"

    def status(self, client_id: int) -> Path:
        return self.root / f"status_{client_id}.json"

    @property
    def received(self) -> Path:
        """The updates of the current round as they were when they were believed; only the server reads and writes here."""
        return self.root / "received"

    @property
    def evaluation_json(self) -> Path:
        return self.root / "evaluation.json"

    @property
    def evaluation_markdown(self) -> Path:
        return self.root / "evaluation.md"

    @property
    def report(self) -> Path:
        """The run as one HTML file, where `fccl report` puts it."""
        return self.root / "report.html"

    @property
    def tensorboard(self) -> Path:
        """The run's TensorBoard events, when they are wanted."""
        return self.root / "tensorboard"

    @property
    def mlflow(self) -> Path:
        """MLflow's own store, of all runs, when MLFLOW_TRACKING_URI names no other."""
        return self.root / "mlruns"

    @property
    def wandb_mark(self) -> Path:
        """How far the run is written to W&B."""
        return self.root / "wandb_written.json"

    @property
    def archive(self) -> Path:
        """Earlier runs, one folder each."""
        return self.root / "runs"

    @property
    def compare(self) -> ComparePaths:
        """A comparison of methods, where `fccl compare` puts it. It is of no run."""
        return ComparePaths(self.root / "compare")

    def all_entries(self) -> tuple[Path, ...]:
        """What a run may write directly into the folder, but for the clients' heartbeats."""
        phases = (self.global_sft, self.global_final)
        fixed = (self.run, self.manifest, self.progress, self.client_metrics, *phases, *map(of_earlier_versions, phases), self.adapter, self.state)
        folders = (self.global_adapter(0).parent, self.client_adapter(0, "sft").parent, self.controls, self.received)
        shown = (self.evaluation_json, self.evaluation_markdown, self.report, self.tensorboard, self.wandb_mark)
        return (*fixed, *folders, *shown)

    def own_entries(self) -> list[Path]:
        """What a run has written directly into the folder, and nothing else that may lie there."""
        return sorted([path for path in self.all_entries() if path.exists()] + list(self.root.glob("status_*.json")))


@dataclass(frozen=True)
class ExchangeName:
    """What a file name in the exchange directory says. `kind` is the method of `ExchangePaths` that formats it."""

    kind: str
    round: int | None = None
    client: int | None = None


_KEPT_NAME = 100  # bytes
_INSIDE_A_CHARACTER = bytes(range(0x80, 0xC0))  # of UTF-8
_ADAPTER = "[.](?:safetensors|pt)"
_NUMBER = "(0|[1-9][0-9]{0,8})"
_EXCHANGE_NAMES = {  # by the first word: what it is, its pattern, what its numbers are
    "phase": ("phase", re.compile(f"phase_{_NUMBER}[.]txt"), ("round",)),
    "global": ("global_adapter", re.compile(f"global_round_{_NUMBER}{_ADAPTER}"), ("round",)),
    "task": ("task", re.compile(f"task_round_{_NUMBER}[.]json"), ("round",)),
    "client": ("update", re.compile(f"client_{_NUMBER}_round_{_NUMBER}{_ADAPTER}"), ("client", "round")),
    "contrib": ("contribution", re.compile(f"contrib_client_{_NUMBER}_round_{_NUMBER}[.]json"), ("client", "round")),
    "done": ("flag", re.compile(f"done_{_NUMBER}_{_NUMBER}[.]flag"), ("client", "round")),
    "status": ("status", re.compile(f"status_{_NUMBER}[.]json"), ("client",)),
    "reference": ("reference", re.compile(f"reference_[0-9a-f]{{16}}{_ADAPTER}"), ()),
    "correction": ("correction", re.compile(f"correction_[0-9a-f]{{16}}{_ADAPTER}"), ()),
    "control": ("control", re.compile(f"control_client_{_NUMBER}_round_{_NUMBER}{_ADAPTER}"), ("client", "round")),
}


@dataclass(frozen=True)
class ExchangePaths:
    """`EXCHANGE_DIR`: what server and clients write for each other. `docs/protocol.md` says who writes what, and in which order."""

    root: Path

    def phase(self, round_number: int) -> Path:
        return self.root / f"phase_{round_number}.txt"

    def global_adapter(self, round_number: int) -> Path:
        return self.root / f"global_round_{round_number}{ADAPTER}"

    def reference(self, sha256: str) -> Path:
        """The reference policy of DPO, named by the hash of the file, so it travels once and no round can change it."""
        return self.root / f"reference_{sha256[:16]}{ADAPTER}"

    def correction(self, sha256: str) -> Path:
        """What SCAFFOLD's clients add to their gradients, named by the hash of the file: clients that are told the same share one."""
        return self.root / f"correction_{sha256[:16]}{ADAPTER}"

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

    def control(self, client_id: int, round_number: int) -> Path:
        """SCAFFOLD's c_i, beside the update."""
        return self.root / f"control_client_{client_id}_round_{round_number}{ADAPTER}"

    def contribution(self, client_id: int, round_number: int) -> Path:
        return self.root / f"contrib_client_{client_id}_round_{round_number}.json"

    def flag(self, client_id: int, round_number: int) -> Path:
        return self.root / f"done_{client_id}_{round_number}.flag"

    def status(self, client_id: int) -> Path:
        return self.root / f"status_{client_id}.json"

    def answer(self, client_id: int, round_number: int) -> tuple[Path, Path, Path]:
        """The three files of every answer, in the order in which they are written."""
        return self.update(client_id, round_number), self.contribution(client_id, round_number), self.flag(client_id, round_number)

    def taken_away(self, client_id: int, round_number: int) -> tuple[Path, ...]:
        """All files that an answer may have, in the order in which they are taken away.

        The flag comes last: while it is there the client has answered, so its next answer never meets the removal of this one.
        """
        original = self.original_update(client_id, round_number)
        return self.control(client_id, round_number), original, *self.answer(client_id, round_number)

    @staticmethod
    def is_half_written(text: str, client_id: int | None = None) -> bool:
        """Whether a temporary file of this name is for a file of this client; without one, of the server."""
        if client_id is None:
            return text.startswith((".global_", ".task_", ".phase_", ".reference_", ".correction_"))
        kinds = ("client", "contrib_client", "control_client", "done", "status")
        return text.startswith(tuple(f".{kind}_{client_id}{end}" for kind in kinds for end in "_."))

    @property
    def bell(self) -> Path:
        """A folder that the server touches when a round begins: waiting clients watch it, and not each other's files."""
        return self.root / "bell"

    @property
    def rejected(self) -> Path:
        """Files that were refused, and why: `rejection` beside them."""
        return self.root / "rejected"

    def rejection(self, stamp: str) -> Path:
        return self.rejected / f"{stamp}_reason.json"

    def kept_as(self, stamp: str, name: str) -> Path:
        """Where a refused file goes. Of a long name the end is kept: a name has at most 255 bytes, and fewer on some file systems."""
        end = os.fsencode(name)[-_KEPT_NAME:]
        return self.rejected / f"{stamp}_{os.fsdecode(end.lstrip(_INSIDE_A_CHARACTER) if len(end) == _KEPT_NAME else end)}"

    @property
    def server_lock(self) -> Path:
        return self.root / "orchestrator.lock"

    def client_lock(self, client_id: int) -> Path:
        return self.root / f"client_{client_id}.lock"

    @staticmethod
    def name(text: str) -> ExchangeName | None:
        """What a file name says; None when it is not one of the protocol."""
        kind, pattern, fields = _EXCHANGE_NAMES.get(text.split("_", 1)[0], ("", None, ()))
        found = pattern.fullmatch(text) if pattern else None
        return ExchangeName(kind, **dict(zip(fields, map(int, found.groups()), strict=True))) if found else None


@dataclass(frozen=True)
class ComparePaths:
    """The folder of a comparison (`fccl compare`)."""

    root: Path

    def data(self, name: str) -> Path:
        """The prepared data of some cells."""
        return self.root / "data" / name

    @property
    def cells(self) -> Path:
        return self.root / "cells"

    def cell(self, key: str) -> Path:
        """One finished cell."""
        return self.cells / f"{key}.json"

    def start(self, key: str) -> Path:
        """The adapter that VA cells start from."""
        return self.root / "starts" / f"{key}{ADAPTER}"

    @property
    def updates(self) -> Path:
        """Client updates that several cells have in common."""
        return self.root / "updates"

    @property
    def results(self) -> Path:
        return self.root / "results.json"

    @property
    def table(self) -> Path:
        return self.root / "table.md"

    @property
    def summary(self) -> Path:
        return self.root / "summary.png"

    @property
    def gaps(self) -> Path:
        return self.root / "gaps.png"

    def weights(self, scenario: str) -> Path:
        return self.root / f"weights_{scenario}.png"

    def loss(self, scenario: str) -> Path:
        return self.root / f"loss_{scenario}.png"

    @property
    def page(self) -> Path:
        return self.root / "index.html"


@dataclass(frozen=True)
class StatePaths:
    """`STATE_DIR`: a folder for each client, for its own eyes."""

    root: Path

    def client(self, client_id: int) -> Path:
        """The client's private folder (`fccl.storage.private`)."""
        return self.root / f"client_{client_id}"

    def answered(self, client_id: int) -> Path:
        """The newest of the server's signed rounds that the client has answered."""
        return self.client(client_id) / "answered.json"

    def lock(self, client_id: int) -> Path:
        """Held while a client that remembers is at work."""
        return self.client(client_id) / "client.lock"


@dataclass(frozen=True)
class KeyPaths:
    """`KEYS_DIR`: one private key each for the server and every client, and everybody's public keys in one file."""

    root: Path

    @property
    def public(self) -> Path:
        return self.root / "public.json"

    @property
    def server(self) -> Path:
        return self.root / "server.key"

    def client(self, client_id: int) -> Path:
        return self.root / f"client_{client_id}.key"
