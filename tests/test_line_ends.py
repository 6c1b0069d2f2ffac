"""Line ends of Windows: a checkout never has them, and whatever people edit there is read all the same."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from fccl.config import load_settings
from fccl.data.examples import SftExample, read_examples
from fccl.data.sources import open_source
from fccl.keys import client_keys, create_keys, server_keys
from fccl.paths import ExchangePaths, KeyPaths
from fccl.records.run import RunEvent
from fccl.storage.reading import parse, read_rows, read_value
from fccl.testing.processes import exchange_spec
from fccl.testing.toy import ToyLearner, shard
from fccl.testing.transport import task
from fccl.transports.exchange.client import ExchangeClient
from fccl.transports.exchange.server import ExchangeTransport
from fccl.transports.exchange.wire import OriginalContribution

ROOT = Path(__file__).resolve().parent.parent
# What a program reads line by line: a carriage return at the end of a line is a part of a word there.
BY_LINE = [
    "docker/engine",
    "docker/fccl",
    "docker/healthy",
    "docker/prepare",
    ".ci/run",
    "Makefile",
    "Dockerfile",
    ".dockerignore",
]


def git(*arguments, cwd):
    return subprocess.run(["git", *arguments], cwd=cwd, check=True, capture_output=True, text=True).stdout


def tracked():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    return [
        name
        for name in git("ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")
        if (ROOT / name).is_file()
    ]


@pytest.fixture(scope="module")
def checkouts(tmp_path_factory):
    """The tree as git for Windows writes it (core.autocrlf=true), with `.gitattributes` and without."""
    names, made = tracked(), {}
    for kind in ("with", "without"):
        made[kind] = tmp_path_factory.mktemp(kind)
        for name in names:
            if kind == "with" or name != ".gitattributes":
                (made[kind] / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, made[kind] / name)
        git("init", "-q", cwd=made[kind])
        git("-c", "core.autocrlf=false", "add", "-A", "-f", cwd=made[kind])
        shutil.move(made[kind] / ".git", made[kind].with_suffix(".git"))
        shutil.rmtree(made[kind])
        made[kind].mkdir()
        shutil.move(made[kind].with_suffix(".git"), made[kind] / ".git")
        git("-c", "core.autocrlf=true", "-c", "core.eol=crlf", "checkout-index", "-a", "-f", cwd=made[kind])
    return made


def test_a_checkout_has_the_same_bytes_everywhere(checkouts):
    changed = [name for name in tracked() if (checkouts["with"] / name).read_bytes() != (ROOT / name).read_bytes()]
    assert changed == []
    assert b"\r\n" in (checkouts["without"] / "docker" / "prepare").read_bytes(), "or this test would see nothing"


def test_no_text_of_the_repository_has_a_carriage_return():
    found = [
        name for name in tracked() if b"\r\n" in (content := (ROOT / name).read_bytes()) and b"\0" not in content[:8000]
    ]
    assert found == []


@pytest.mark.parametrize("name", BY_LINE)
def test_what_is_read_line_by_line_is_there_with_plain_line_ends(checkouts, name):
    assert b"\r" not in (checkouts["with"] / name).read_bytes()
    assert b"\r" in (checkouts["without"] / name).read_bytes()


@pytest.mark.parametrize("name", [name for name in BY_LINE if "docker/" in name or name == ".ci/run"])
def test_scripts_of_a_checkout_can_be_run(checkouts, name):
    shell = "bash" if name == ".ci/run" else "sh"
    result = subprocess.run([shell, "-n", checkouts["with"] / name], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_makefile_of_a_checkout_can_be_run(checkouts):
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=checkouts["with"], capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown.stderr
    assert "\r" not in shown.stdout
    assert "test-docker" in shown.stdout


# --- what people edit themselves


def windows(path, text):
    path.write_bytes(text.replace("\n", "\r\n").encode())
    return path


def test_dotenv(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    windows(tmp_path / ".env", '# mine\nFED_ROUNDS=7\nPRESET=gpt2\nDATA_DIR="./elsewhere"\nEVALUATE=false\n')
    settings = load_settings()
    assert (settings.fed_rounds, settings.preset, settings.data_dir, settings.evaluate) == (
        7,
        "gpt2",
        Path("elsewhere"),
        False,
    )
    assert settings.model_name == "gpt2", "the preset is known by its name too"


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("FED_ROUNDS", "3\r", 3),
        ("SFT_LR", "0.5\r\n", 0.5),
        ("EVALUATE", "false\r", False),
        ("DATA_DIR", "elsewhere\r", Path("elsewhere")),
        ("MODEL_NAME", "models/mine\r", "models/mine"),
        ("KEYS_DIR", "keys\r", "keys"),
        ("NOISY_CLIENTS", "0,2\r", "0,2"),
        ("PRESET", "gpt2\r", "gpt2"),
    ],
)
def test_a_variable_that_a_shell_has_read_from_such_a_file(monkeypatch, name, value, meant):
    monkeypatch.setenv(name, value)
    settings = load_settings()
    assert getattr(settings, name.lower()) == meant
    assert settings.max_length == {"PRESET": 512, "MODEL_NAME": 0}.get(name, 256)  # a model of one's own: its context


ROWS = [{"instruction": "one\r\ntwo", "output": "\u2028"}, {"instruction": "three", "output": "four\n"}]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", "\n".join(map(json.dumps, ROWS)) + "\n"),
        ("no-end.jsonl", "\n".join(map(json.dumps, ROWS))),
        ("gaps.jsonl", "\n\n" + "\n\n".join(map(json.dumps, ROWS)) + "\n\n"),
        ("a.json", json.dumps(ROWS, indent=1) + "\n"),
        ("mark.json", "\ufeff" + json.dumps(ROWS, indent=1)),
        ("mark.jsonl", "\ufeff" + "\n".join(map(json.dumps, ROWS))),
    ],
)
def test_data_files(tmp_path, name, text):
    assert [row for _, row in open_source(str(windows(tmp_path / name, text)), "sft").rows] == ROWS


def test_shards(tmp_path):
    rows = [{"instruction": "one\r\ntwo", "response": "three"}, {"instruction": "four", "response": "five"}]
    path = windows(tmp_path / "client_0_sft.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert [example.instruction for example in read_examples(path, SftExample)] == ["one\r\ntwo", "four"]


def test_records(tmp_path):
    event = RunEvent(event="started", run_id="run", time=1.0, round=0)
    assert (
        list(read_rows(windows(tmp_path / "progress.jsonl", (event.model_dump_json() + "\n") * 3)))
        == [json.loads(event.model_dump_json())] * 3
    )
    assert read_value(windows(tmp_path / "run.json", event.model_dump_json(indent=1) + "\n"), RunEvent) == event


def test_keys(tmp_path):
    folder = KeyPaths(tmp_path)
    create_keys(folder, 2)
    before = server_keys(folder).public
    for path in tmp_path.iterdir():
        mode = path.stat().st_mode
        windows(path, path.read_text())
        assert path.stat().st_mode == mode
    assert server_keys(folder).public == client_keys(folder, 1).public == before


@pytest.mark.parametrize("phase", ["sft\r\n", "sft\n", "sft\r", " sft ", "sft"])
def test_phase_and_task_files(tmp_path, phase):
    paths = ExchangePaths(tmp_path)
    with ExchangeTransport(paths, exchange_spec(1), tmp_path / "received") as exchange:
        opened = exchange.open(task(), (0,))
    paths.phase(0).write_bytes(phase.encode())
    windows(paths.task(0), paths.task(0).read_text())
    assert ExchangeClient(paths, 0, ToyLearner(), shard).newest() == opened


def test_contributions_of_original_peers():
    said = parse(b'{\r\n "avg_loss": 1.5,\r\n "num_samples": 2\r\n}\r\n', OriginalContribution, "contrib")
    assert (said.avg_loss, said.num_samples) == (1.5, 2)


@pytest.mark.parametrize("compose", [["docker-compose"], ["docker", "compose"]], ids=" ".join)
def test_compose_reads_such_files(tmp_path, compose):
    if (
        not shutil.which(compose[0])
        or subprocess.run([*compose, "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip(f"{' '.join(compose)} is not here")
    windows(tmp_path / "docker-compose.yml", (ROOT / "docker-compose.yml").read_text())
    windows(tmp_path / ".env", "FED_ROUNDS=7\nDATA_DIR=./elsewhere\nFCCL_UID=4321\n")
    environment = {
        name: value for name, value in os.environ.items() if name not in ("FED_ROUNDS", "DATA_DIR", "FCCL_UID")
    }
    result = subprocess.run([*compose, "config"], cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    assert b"\r" not in result.stdout
    assert f"{tmp_path}/elsewhere/clients/client_0_sft.jsonl".encode() in result.stdout
    assert b"4321" in result.stdout
