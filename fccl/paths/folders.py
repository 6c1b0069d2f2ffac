"""The folders of one machine: data, logs, comparisons, what clients remember, keys."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fccl.paths.after import AfterPaths
from fccl.paths.kept_round import KeptRoundPaths
from fccl.paths.names import ADAPTER, CODED, of_earlier_versions
from fccl.paths.personal import PersonalPaths
from fccl.paths.residuals import ResidualPaths


@dataclass(frozen=True)
class DataPaths:
    """`DATA_DIR`: what `fccl prepare` writes.

    `server/` is never shown to a client, `clients/` never to the evaluation.
    """

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

    def server_split(self, split: str, phase: str) -> Path:
        """`split` is `learn`, `validation` or `test`."""
        return self.server / f"{split}_{phase}.jsonl"


@dataclass(frozen=True)
class LogPaths:
    """`LOG_DIR`: what a run leaves behind."""

    root: Path

    @property
    def run(self) -> Path:
        """The run's identity: its id, its settings, the hash of its data."""
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
    def start(self) -> Path:
        """The adapter that the run started from, where a later round or an evaluation asks for it again."""
        return self.root / f"start{ADAPTER}"

    @property
    def global_sft(self) -> Path:
        """The global adapter after the last SFT round: the reference policy of every VA round."""
        return self.root / f"global_sft{ADAPTER}"

    @property
    def reference(self) -> Path:
        """The reference policy of every VA round: `global_sft`, or `start` of a run without SFT rounds."""
        return self.start if self.start.is_file() and not _is_there(self.global_sft) else self.global_sft

    @property
    def global_final(self) -> Path:
        return self.root / f"global_final{ADAPTER}"

    @property
    def adapter(self) -> Path:
        """The final adapter in PEFT's own format."""
        return self.root / "adapter"

    @property
    def state(self) -> Path:
        """The last complete round; written last, so it commits the round."""
        return self.root / "state.json"

    @property
    def state_sft(self) -> Path:
        """The state after the last SFT round, from which more of them can be done."""
        return self.root / "state_sft.json"

    @property
    def audit(self) -> Path:
        """The result of `fccl audit`. It is of no run: an audit has a federation of its own."""
        return self.root / "audit.json"

    @property
    def planned(self) -> Path:
        """The forecast of a run that has not begun: the next one with its settings takes it along."""
        return self.root / "planned.json"

    @property
    def plan(self) -> Path:
        """The forecast that was made for this run."""
        return self.root / "plan.json"

    @property
    def usage(self) -> Path:
        """The memory that the run took, and the seconds of its evaluation."""
        return self.root / "usage.json"

    def global_adapter(self, next_round: int) -> Path:
        """The global adapter of the round before this one, with which this one starts, unless it is the first of VA:
        that starts with `reference`.
        """
        return self.root / "rounds" / f"global_round_{next_round}{ADAPTER}"

    def server_state(self, next_round: int) -> Path:
        """The state that the aggregation rule carries into `next_round`, when it carries anything."""
        return self.root / "rounds" / f"server_state_{next_round}{ADAPTER}"

    def coded(self, next_round: int) -> Path:
        """The global adapter of `next_round` as clients get it in few bytes, where UPDATE_CODEC asks for that."""
        return self.global_adapter(next_round).with_suffix(CODED)

    def lag(self, next_round: int) -> Path:
        """The part of the aggregates that these bytes have left out so far."""
        return self.root / "rounds" / f"lag_{next_round}{ADAPTER}"

    @property
    def residuals(self) -> Path:
        """The parts that clients of this program have left out of their updates so far."""
        return self.root / "residuals"

    def residuals_of(self, client_id: int) -> ResidualPaths:
        return ResidualPaths(self.residuals / f"client_{client_id}")

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
    def sites(self) -> Path:
        """The state of every site of a run over Flower, and the bytes that were carried to it and back."""
        return self.root / "sites.json"

    @property
    def received(self) -> Path:
        """The updates of the current round as they were when they were believed; only the server reads and
        writes here."""
        return self.root / "received"

    @property
    def private(self) -> Path:
        """The server's secret and its ledger, where it adds the noise; of all runs in this folder."""
        return self.root / "private"

    @property
    def kept(self) -> Path:
        """Updates as they arrived, by round; only the server reads and writes here."""
        return self.root / "kept"

    def kept_round(self, number: int) -> KeptRoundPaths:
        return KeptRoundPaths(self.kept / f"round_{number}")

    @property
    def seal(self) -> Path:
        """The hashes of all that a finished run has written."""
        return self.root / "seal.json"

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
        """The mark of how far the run is written to W&B."""
        return self.root / "wandb_written.json"

    @property
    def archive(self) -> Path:
        """Earlier runs, one folder each."""
        return self.root / "runs"

    @property
    def compare(self) -> ComparePaths:
        """A comparison of methods, where `fccl compare` puts it. It is of no run."""
        return ComparePaths(self.root / "compare")

    def after(self, run_id: str) -> AfterPaths:
        """Answers to questions that were asked after a run, which may have moved to `runs/` since. It is of no run."""
        return AfterPaths(self.root / "after" / run_id)

    def sealed_entries(self) -> tuple[Path, ...]:
        """The files of a finished run that nobody writes to again; its logs may be added to."""
        adapters = (self.start, self.global_sft, self.global_final)
        logs = (self.progress, self.client_metrics)
        return (self.run, self.manifest, *adapters, *logs, self.state, self.state_sft)

    def sealed_folders(self) -> tuple[Path, ...]:
        """Folders of a finished run to which nobody adds."""
        inner = (self.global_adapter(0).parent, self.client_adapter(0, "sft").parent)
        return (self.adapter, *inner, self.controls)

    def all_entries(self) -> tuple[Path, ...]:
        """The entries that a run may write directly into the folder, but for the clients' heartbeats."""
        phases = (self.global_sft, self.global_final)
        fixed = (
            self.run,
            self.manifest,
            self.start,
            self.progress,
            self.client_metrics,
            *phases,
            *map(of_earlier_versions, phases),
            self.adapter,
            self.state,
            self.state_sft,
            self.plan,
            self.usage,
            self.seal,
            self.sites,
        )
        inner = (self.global_adapter(0).parent, self.client_adapter(0, "sft").parent)
        folders = (*inner, self.controls, self.received, self.kept, self.residuals)
        shown = (self.evaluation_json, self.evaluation_markdown, self.report, self.tensorboard, self.wandb_mark)
        return (*fixed, *folders, *shown)

    def own_entries(self) -> list[Path]:
        """The entries that a run has written directly into the folder, and nothing else that may lie there."""
        return sorted([path for path in self.all_entries() if path.exists()] + list(self.root.glob("status_*.json")))


def _is_there(adapter: Path) -> bool:
    """Whether an adapter's file is there, of this version or an earlier one."""
    return adapter.is_file() or of_earlier_versions(adapter).is_file()


@dataclass(frozen=True)
class ComparePaths:
    """The folder of a comparison (`fccl compare`)."""

    root: Path

    def data(self, name: str) -> Path:
        """The prepared data of some trials."""
        return self.root / "data" / name

    @property
    def trials(self) -> Path:
        return self.root / "trials"

    def trial(self, key: str) -> Path:
        """One finished trial."""
        return self.trials / f"{key}.json"

    def start(self, key: str) -> Path:
        """The adapter that VA trials start from."""
        return self.root / "starts" / f"{key}{ADAPTER}"

    @property
    def updates(self) -> Path:
        """Client updates that several trials have in common."""
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

    def cache(self, client_id: int) -> Path:
        """The results that the client need not compute again."""
        return self.client(client_id) / "cache"

    def residuals(self, client_id: int) -> ResidualPaths:
        """The parts that the client has left out of its updates so far."""
        return ResidualPaths(self.client(client_id) / "residuals")

    def personal(self, client_id: int) -> PersonalPaths:
        """The client's personal adapters."""
        return PersonalPaths(self.client(client_id) / "personal")

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
    def lock(self) -> Path:
        """Held while keys are added or revoked."""
        return self.root / "keys.lock"

    @property
    def server(self) -> Path:
        return self.root / "server.key"

    def client(self, client_id: int) -> Path:
        return self.root / f"client_{client_id}.key"
