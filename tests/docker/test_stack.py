"""The image and the compose stack for real. `make test-docker` runs these: they need a Docker engine."""

import os
import shutil
import sys
import urllib.request
from pathlib import Path

import pytest

from fccl.paths import StatePaths
from fccl.records.run import RoundRecord
from fccl.storage.files import sha256_of
from fccl.storage.reading import read_records, read_rows
from fccl.transports.exchange.memory import Answered
from tests.docker.stack import (
    COMPOSES,
    IMAGE,
    ROOT,
    SMALL,
    clean_environment,
    in_process,
    is_here,
    left_over,
    run,
    stack,
    stamps,
    torch_index,
    until,
)

pytestmark = pytest.mark.docker
USER = 1000
STATE = StatePaths(Path("state"))
FEDERATION = ("orchestrator", "client_0", "client_1", "client_2")
MOST_BYTES = 2.2e9  # above the base image: a CUDA build of torch, or another library of its size, would show


HERE = [compose for compose in COMPOSES if is_here(compose)]


@pytest.fixture(scope="module", autouse=True)
def image():
    """Built by the committed compose file, once; layers that have not changed are kept from one time to the next."""
    assert HERE, "neither docker-compose nor docker compose is here"
    run(*HERE[0], "build", timeout=1200, cwd=ROOT, env=clean_environment(BUILD_NETWORK="host") | torch_index())


# --- the image


def test_the_image_is_small_and_holds_no_tools():
    base = os.environ.get("BASE_IMAGE", "python:3.11-slim")
    size, base_size = (int(run("docker", "image", "inspect", "-f", "{{.Size}}", name).stdout) for name in (IMAGE, base))
    print(f"image {size / 1e9:.2f} GB, of which {(size - base_size) / 1e9:.2f} GB are not the base image")
    assert size - base_size < MOST_BYTES
    assert run("docker", "image", "inspect", "-f", "{{.Config.User}}", IMAGE).stdout.strip() == f"{USER}:{USER}"
    script = """
        command -v gcc cc c++ make cmake pytest ruff mypy
        find / -xdev \\( -path '*/.cache/pip' -o -path '/opt/venv/*.whl' -o -path '/opt/*/tests' \\) 2>/dev/null
        for module in pip setuptools pytest hypothesis mypy trl; do python -c "import $module" 2>/dev/null && echo $module; done
        python -c 'import torch; print(torch.version.cuda)'
    """
    assert (
        run("docker", "run", "--rm", "--network", "none", "--entrypoint", "sh", IMAGE, "-c", script).stdout == "None\n"
    )


def test_anybody_can_run_it():
    """A user without a name or a home, without a network, on a read-only file system."""
    limits = ("--user", "4321:4321", "--network", "none", "--read-only", "--tmpfs", "/tmp")
    few = ("--data-dir", "/tmp/data", "--max-sft-examples", "50", "--max-va-examples", "50")
    printed = run("docker", "run", "--rm", *limits, IMAGE, "prepare", *few).stdout
    assert "Shards, learn, validation and test splits, manifest: /tmp/data/" in printed
    assert "warning" not in printed.lower()


# --- the stack


def test_killed_containers_come_back_and_the_result_is_the_same(tmp_path):
    """Nothing is prepared; a client and the orchestrator are killed in the middle; the dashboard stays."""
    with stack(tmp_path, HERE[0], EXCHANGE_DIR="./exchange") as up:
        up("up", "-d")
        until(up.exchange.phase(1).exists, "the second round")
        up.kill("client_1")
        up.kill("orchestrator")
        assert not up.exchange.phase(4).exists(), "the kill came too late"
        until(lambda: up.container("dashboard")["State"]["Health"]["Status"] == "healthy", "a healthy dashboard")
        assert (
            urllib.request.urlopen(
                f"http://127.0.0.1:{up.settings['DASHBOARD_PORT']}/_stcore/health", timeout=10
            ).read()
            == b"ok"
        )
        until(lambda: up.ended(*FEDERATION), "the end")

        states = {service: up.container(service) for service in FEDERATION}
        assert {service: state["State"]["ExitCode"] for service, state in states.items()} == dict.fromkeys(
            FEDERATION, 0
        )
        restarts = {service: state["RestartCount"] for service, state in states.items()}
        assert restarts == {"orchestrator": 1, "client_0": 0, "client_1": 1, "client_2": 0}
        assert up.container("dashboard")["State"]["Running"]
        up("stop", "dashboard")
        assert up.container("dashboard")["State"]["ExitCode"] in (0, 130, 143), "it ends when it is asked to"
    assert left_over(up.project) == ""

    records = read_records(up.logs.progress, RoundRecord)
    assert [(record.round, record.clients) for record in records] == [(number, (0, 1, 2)) for number in range(4)]
    assert [row["event"] for row in read_rows(up.logs.progress) if row["event"] != "round"] == [
        "started",
        "resumed",
        "finished",
    ]
    assert {owner for folder in (up.data.root, up.logs.root) for _, owner in stamps(folder).values()} == {USER}
    assert sha256_of(up.logs.global_final) == in_process(tmp_path / "in-process")


@pytest.mark.parametrize("compose", HERE, ids=" ".join)
def test_prepared_data_is_used_as_it_is_and_everybody_signs(tmp_path, compose):
    """Two clients, data that the host has prepared, keys that are made at the first start; `up orchestrator` ends by
    itself.
    """
    expected = in_process(tmp_path, NUM_CLIENTS="2")
    shutil.rmtree(tmp_path / "logs")
    prepared = stamps(tmp_path / "data")
    with stack(tmp_path, compose, clients=2, keys=True) as up:
        assert "exited with code 0" in up("up", "orchestrator").stdout
        until(lambda: up.ended("client_0", "client_1"), "the clients' end")
        assert sha256_of(up.logs.global_final) == expected
        assert stamps(up.data.root) == prepared
        assert not up("ps", "-q", "-a", check=False).stdout.count("dashboard")

        look = """
            find data keys logs; find . -type f -writable ! -path './exchange/*' ! -path './state/*'
            ls /sys/class/net; id -u; touch logs/mine && echo wrote; true
        """
        for number in (0, 1):
            own = {f"data/clients/client_{number}_{phase}.jsonl" for phase in ("sft", "va")} | {
                f"keys/client_{number}.key",
                "keys/public.json",
            }
            assert set(up.inside(f"client_{number}", look).split()) == own | {
                "data",
                "data/clients",
                "keys",
                "lo",
                str(USER),
            }
        assert up.inside("orchestrator", "ls keys").split() == ["public.json", "server.key"]
        up("down")
        for number in (0, 1):
            state, answered = up.inside(
                f"client_{number}", f"stat -c '%a %u' state/*; ls state; cat {STATE.answered(number)}"
            ).rsplit("\n", 2)[:2]
            assert state.split() == ["700", str(USER), f"client_{number}"], (
                "its own alone, and it outlives its containers"
            )
            assert Answered.model_validate_json(answered).round == 3
        assert_confined(up)
        assert_commands_work(up)
        if compose == HERE[0]:
            assert "is finished" in up("up", "orchestrator").stdout, "started again, it has nothing to do"
    assert left_over(up.project) == ""


WRITES = """
    for folder in / /fccl /opt/app/fccl /opt/venv/bin /usr/bin /etc /var/tmp; do touch $folder/x 2>/dev/null && echo wrote to $folder; done
    echo y > /tmp/x && cat /tmp/x; stat -f -c %T /tmp
    sed -n 's/^\\(CapEff\\|NoNewPrivs\\):\t*//p' /proc/self/status
"""
FORKS = (
    "(i=0; while [ $i -lt 1500 ]; do sleep 60 >/dev/null 2>&1 & i=$((i + 1)); done) 2>&1 | tail -n 1; set -- "
    "/proc/[0-9]*; echo $#"
)


def assert_confined(up):
    """No service can change what it is made of, or has more rights than it needs; its processes are counted."""
    root = "00000000000000e3"  # CHOWN, DAC_OVERRIDE, KILL, SETGID, SETUID
    for service in ("client_0", "orchestrator", "dashboard", "prepare"):
        rights = root if service == "prepare" else "0" * 16
        assert up.inside(service, WRITES).split() == ["y", "tmpfs", rights, "1"], service
    said, processes = up.inside("client_0", FORKS).rsplit("\n", 2)[:2]
    assert said.lower().endswith("cannot fork")
    assert 1000 < int(processes) <= 1024


def assert_commands_work(up):
    """What writes results, and what draws pages, needs nothing of the image to be written to."""
    command = ("run", "--rm", "--no-deps", "-T", "orchestrator")
    assert "report.html" in up(*command, "report").stdout
    assert up.logs.report.stat().st_size > 100_000
    up(*command, "evaluate", "--sft", "8", "--va", "8", "--gen-samples", "1")
    assert up.logs.evaluation_json.exists()
    up(*command, "export", "logs/exported")
    page = "from fccl.apps.dashboard_script import page; page(['--log-dir', 'logs', '--exchange-dir', 'exchange'])"
    draw = (
        f'from streamlit.testing.v1 import AppTest; page = AppTest.from_string("{page}", default_timeout=120).run(); '
    )
    judge = "print(len(page.exception), any('fccl-sentence' in each.proto.body for each in page.get('html')))"
    assert up.inside("dashboard", f"python - <<'END'\n{draw}{judge}\nEND").split() == ["0", "True"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"NUM_CLIENTS": "5"},
            "error: NUM_CLIENTS=5, but the compose file has services for 3 clients\n  hint: `fccl compose "
            "--num-clients 5` ",
        ),
        (
            {"KEYS_DIR": "./keys"},
            "error: KEYS_DIR=./keys, but the compose file was written without keys\n  hint: `fccl compose "
            "--num-clients 3 --k",
        ),
        ({"FED_ROUNDS": "0"}, "error: FED_ROUNDS=0: allowed is a whole number >= 1"),
        ({"SFT_DATA": "data/none.json"}, "error: data/none.json"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_starts(tmp_path, settings, said):
    with stack(tmp_path, HERE[0]) as up:
        result = up("run", "--rm", "-T", "prepare", check=False, **settings)
        assert result.returncode != 0
        assert said in result.stdout
        assert not up.data.manifest.exists()


def test_data_and_folders_of_others_are_neither_used_nor_changed(tmp_path):
    run(
        sys.executable,
        "-m",
        "fccl",
        "prepare",
        cwd=tmp_path,
        env=clean_environment(**SMALL, SEED="7", PYTHONPATH=str(ROOT)),
    )
    prepared = stamps(tmp_path / "data")
    with stack(tmp_path, HERE[0]) as up:
        assert up("up", "orchestrator", check=False).returncode != 0
        assert "error: the data in data/ was prepared with SEED=7" in up("logs", "--no-color", "prepare").stdout
        assert stamps(tmp_path / "data") == prepared
        up("run", "--rm", "-T", "--entrypoint", "chown", "prepare", "4321:4321", "logs")
        refused = up("run", "--rm", "-T", "prepare", check=False, SEED="7")
        assert refused.returncode == 2
        assert (
            "error: the containers run as user 1000, who may not write to logs/ of user 4321\n  hint: put "
            "FCCL_UID=4321 and" in refused.stdout
        )
        up("run", "--rm", "-T", "prepare", SEED="7", FCCL_UID="4321", FCCL_GID="4321")
        if os.geteuid() not in (USER, 4321):
            (tmp_path / "data" / "server" / "test_va.jsonl").chmod(0o600)
            refused = up("run", "--rm", "-T", "prepare", check=False, SEED="7", FCCL_UID="4321", FCCL_GID="4321")
            assert (
                "error: the containers run as user 4321, who may not read data/server/test_va.jsonl of user"
                in refused.stdout
            )
