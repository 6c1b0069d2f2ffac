"""A SuperLink and three sites as processes on this host: the same bytes as in one process, over kills too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from fccl.config import Settings
from fccl.paths import ExchangePaths, LogPaths
from fccl.records.sites import SitesRecord
from fccl.storage.files import sha256_of, write_text
from fccl.storage.reading import read_value
from fccl.testing.loopback import Certificates, Loopback, loopback, until
from tests.flower import rules
from tests.flower.certificates import certificates

pytestmark = pytest.mark.flower
ROOT = Path(__file__).resolve().parent.parent.parent
CLIENTS = (0, 1, 2)
SMALL = {
    "MAX_SFT_EXAMPLES": "150",
    "MAX_VA_EXAMPLES": "90",
    "EVALUATE": "false",
    "THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
PATIENT = {"CLIENT_TIMEOUT_S": "600", "HEARTBEAT_STALE_S": "300"}  # nobody is given up on a busy machine
WAYS = ("alone", "flower")
HARD = ("--contribution-source", "verified", "--aggregation", "scaffold")


def clean_environment(**settings: str) -> dict[str, str]:
    """This process's environment without any setting of FCCL, and with these."""
    kept = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
    return kept | SMALL | {"PYTHONPATH": str(ROOT)} | settings


def fccl(folder: Path, *arguments: str, **settings: str) -> list[str]:
    """Call a command to its end; its output, which ends with a good status."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "fccl", *arguments],
        cwd=folder,
        env=clean_environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout.splitlines()


def in_one_process(folder: Path, *arguments: str) -> str:
    """SHA-256 of the final adapter of `fccl run`."""
    fccl(folder, "run", *arguments, CLIENT_PROCESSES="1")
    return sha256_of(LogPaths(folder / "logs").global_final)


@contextmanager
def sites(folder: Path, isolation: str = "subprocess", tls: Certificates | None = None):
    """A deployment whose server works in `folder`; each site has a folder of its own beside it."""
    places = {number: folder / f"site_{number}" for number in CLIENTS}
    # the variables are also those of the ServerApp, which our command replaces by its own
    with loopback(folder, places, isolation, tls, **clean_environment()) as deployment:
        yield deployment


def workers(deployment: Loopback) -> None:
    """A worker for each site, that begins to wait."""
    for number in CLIENTS:
        command = [sys.executable, "-m", "fccl", "client", "--client-id", str(number)]
        where = ["--exchange-dir", f"site_{number}", "--data-dir", "data", "--state-dir", f"state_{number}"]
        deployment.start(f"client_{number}", [*command, *where])


def final(folder: Path) -> str:
    return sha256_of(LogPaths(folder / "logs").global_final)


def over_flower(deployment: Loopback, *arguments: str) -> str:
    """SHA-256 of the final adapter of `fccl flower run`, whose workers end by themselves."""
    workers(deployment)
    tls = ["--root-certificates", str(deployment.tls.ca)] if deployment.tls else []
    flower = ["flower", "run", "--superlink", deployment.address, *tls]
    fccl(deployment.folder, *flower, *arguments, **PATIENT)
    for number in CLIENTS:
        assert deployment.processes.pop(f"client_{number}").wait(60) == 0
    return final(deployment.folder)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A deployment with TLS, for one run after the other."""
    folder = tmp_path_factory.mktemp("shared")
    with sites(folder / "flower", tls=certificates(folder / "tls")) as deployment:
        yield deployment


def test_two_rounds_over_a_superlink_have_the_bytes_of_one_process(shared, tmp_path):
    """With TLS, and the rules that ask most of a transport: verified updates, and SCAFFOLD's corrections."""
    expected = in_one_process(tmp_path, "--fed-rounds", "1", *HARD)
    assert over_flower(shared, "--fed-rounds", "1", *HARD) == expected
    logs = LogPaths(shared.folder / "logs")
    told = map(json.loads, logs.progress.read_text().splitlines())
    rounds = [(record["phase"], record["clients"]) for record in told if record["event"] == "round"]
    assert rounds == [("sft", [0, 1, 2]), ("va", [0, 1, 2])]
    said = read_value(logs.sites, SitesRecord)
    assert [(each.client_id, each.online, each.given_up) for each in said.sites] == [(n, True, "") for n in CLIENTS]
    assert [each.round for each in said.rounds] == [0, 1, 2]  # the last: the end of the run
    assert all(each.up > 0 for each in said.rounds[:2])


def test_other_rules_and_a_codec_have_the_bytes_of_one_process_too(shared):
    """One run after the other over the same SuperLink, SuperNodes and workers."""
    folder = shared.folder
    module = [sys.executable, "-m", "tests.flower.rules"]
    shared.start("alone", [*module, "alone", str(folder)], CLIENT_PROCESSES="1")
    assert shared.processes.pop("alone").wait(540) == 0
    for number in CLIENTS:
        shared.start(f"worker_{number}", [*module, "worker", str(number), str(folder)])
    write_text(folder / "rules.json", "{}\n")
    shared.submit(folder / "rules.json", "tests.flower.rules")
    until(rules.outcome(folder).exists, "the end of the runs", 1800)  # on a machine with much other work
    for number in CLIENTS:
        shared.kill(f"worker_{number}")
    assert rules.outcome(folder).read_text() == ""
    ways = [{name: sha256_of(rules.logs(folder, way, name).global_final) for name in rules.RUNS} for way in WAYS]
    assert ways[0] == ways[1]
    assert len(set(ways[0].values())) == len(rules.RUNS)


def opened(folder: Path, number: int) -> bool:
    """Whether the server has opened this round."""
    return ExchangePaths(folder / "exchange").phase(number).exists()


def test_killed_superlink_supernode_and_serverapp_change_no_byte(tmp_path):
    expected, folder = in_one_process(tmp_path / "alone", "--fed-rounds", "2"), tmp_path / "flower"
    with sites(folder, "process") as deployment:
        workers(deployment)
        arguments = ["flower", "run", "--superlink", deployment.address, "--fed-rounds", "2"]
        command = [sys.executable, "-m", "fccl", *arguments]
        deployment.start("run", command, **PATIENT)
        until(lambda: opened(folder, 0), "the first round", 300)
        deployment.kill("supernode_1")
        deployment.super_node(1, folder / "site_1")
        until(lambda: opened(folder, 1), "the second round", 300)
        deployment.kill("superlink")
        deployment.super_link()
        until(lambda: opened(folder, 2), "the third round", 300)
        deployment.kill("superexec")  # and the ServerApp with it
        deployment.kill("run")
        deployment.super_exec()
        fccl(folder, *arguments, **PATIENT)
    assert final(folder) == expected
