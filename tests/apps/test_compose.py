"""`fccl compose` and the committed `docker-compose.yml`. Whether the stack works is for `make test-docker`."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fccl.apps.compose import FIXED, compose_file
from fccl.apps.main import main
from fccl.config import Settings
from fccl.paths import DataPaths, KeyPaths
from fccl.specs import PHASES

ROOT = Path(__file__).resolve().parent.parent.parent
SIZES = [1, 3, 50]
COMPOSES = [["docker-compose"], ["docker", "compose"]]


def services(content):
    return yaml.safe_load(content)["services"]


def mounts(service):
    """Path in the container -> (path on the host, mode), with the defaults of the variables."""
    found = {}
    for mount in service["volumes"]:
        host, inside, *mode = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", mount).split(":")
        found[Path(inside).relative_to("/fccl").as_posix()] = (host, "".join(mode))
    return found


def test_the_committed_file_is_what_the_command_writes():
    assert (ROOT / "docker-compose.yml").read_text() == compose_file(3), "write it anew: `fccl compose`"


@pytest.mark.parametrize("keys", [False, True])
@pytest.mark.parametrize("clients", SIZES)
def test_one_service_for_each_client_cut_from_one_anchor(clients, keys):
    content = compose_file(clients, keys)
    assert content.count("&client") == 1
    assert content.count("<<: *client\n") == clients
    found = services(content)
    assert set(found) == {"prepare", "orchestrator", "dashboard"} | {f"client_{number}" for number in range(clients)}
    own = {"environment", "volumes"}
    shared = [
        {name: value for name, value in found[f"client_{number}"].items() if name not in own}
        for number in range(clients)
    ]
    assert all(each == shared[0] for each in shared)


@pytest.mark.parametrize("keys", [False, True])
@pytest.mark.parametrize("clients", SIZES)
def test_every_client_has_a_volume_of_its_own_that_no_other_service_sees(clients, keys):
    content = yaml.safe_load(compose_file(clients, keys))
    volumes = [f"state_{number}" for number in range(clients)]
    assert list(content["volumes"]) == ["exchange", "models", *volumes]
    seen = [
        (name, mount)
        for name, service in content["services"].items()
        for mount in service["volumes"]
        if mount.startswith("state")
    ]
    assert seen == [(f"client_{number}", f"{volume}:/fccl/state") for number, volume in enumerate(volumes)]


@pytest.mark.parametrize("keys", [False, True])
@pytest.mark.parametrize("clients", SIZES)
def test_every_service_is_confined(clients, keys):
    for name, service in services(compose_file(clients, keys)).items():
        assert service["read_only"] is True, name
        assert service["tmpfs"] == ["/tmp:size=256m,mode=1777"]
        assert service["pids_limit"] == 1024, (
            "a number: docker-compose 1.29 ends with a traceback for a variable here, though `config` accepts it"
        )
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service.get("cap_add", []) == (
            ["CHOWN", "DAC_OVERRIDE", "KILL", "SETGID", "SETUID"] if name == "prepare" else []
        )
        assert not service.keys() & {"privileged", "devices", "pid", "ipc", "userns_mode"}
        assert not any("docker.sock" in volume for volume in service["volumes"])


@given(clients=st.integers(1, 12), keys=st.booleans())
def test_a_client_sees_its_own_files_the_exchange_and_the_model(clients, keys):
    found = services(compose_file(clients, keys))
    data, key_files = DataPaths(Path("data")), KeyPaths(Path("keys"))
    for number in range(clients):
        client = found[f"client_{number}"]
        own = [data.shard(number, phase) for phase in PHASES] + [key_files.client(number), key_files.public] * keys
        expected = {path.as_posix(): (f"./{path.as_posix()}", "ro") for path in own}
        assert mounts(client) == expected | {
            "exchange": ("exchange", ""),
            "models": ("models", "ro"),
            "state": (f"state_{number}", ""),
        }
        assert client["environment"]["CLIENT_ID"] == number
        assert client["network_mode"] == "none"
    server_keys = {"keys/server.key", "keys/public.json"} if keys else set()
    assert set(mounts(found["orchestrator"])) == {"data", "logs", "exchange", "models"} | server_keys
    assert mounts(found["dashboard"]) == {"logs": ("./logs", "ro"), "exchange": ("exchange", "ro")}


@given(clients=st.integers(1, 6), keys=st.booleans())
def test_a_site_s_folder_is_seen_by_its_own_client_alone_and_nobody_has_a_shard(clients, keys):
    found = services(compose_file(clients, keys, own_files=True))
    for number in range(clients):
        client, seen = found[f"client_{number}"], mounts(found[f"client_{number}"])
        assert seen["site"] == (f"./sites/client_{number}", "ro")
        assert not [path for path in seen if path.startswith("data")]
        files = "--sft-data site/sft.jsonl --va-data site/va.jsonl"
        assert client["command"] == f"client ${{SITE_ARGUMENTS_{number}:-{files}}}"
        assert client["environment"]["SERVER_ONLY"] == "true"
    others = [mount for name in ("prepare", "orchestrator", "dashboard") for mount in mounts(found[name])]
    assert "site" not in others
    assert found["prepare"]["environment"]["SERVER_ONLY"] == "true"


def test_the_file_of_sites_names_its_command_and_is_else_the_usual_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["compose", "--num-clients", "2", "--own-files"]) == 0
    written = Path("docker-compose.yml").read_text()
    assert written == compose_file(2, own_files=True)
    assert written.startswith("# Written by `fccl compose --num-clients 2 --own-files`.")
    for name in ("prepare", "orchestrator", "dashboard"):
        mine, usual = services(written)[name], services(compose_file(2))[name]
        assert {key: value for key, value in mine.items() if key != "environment"} == {
            key: value for key, value in usual.items() if key != "environment"
        }


@pytest.mark.parametrize("service", ["prepare", "orchestrator", "client_0"])
def test_every_setting_reaches_the_containers(service):
    environment = services(compose_file(3))[service]["environment"]
    passed = {name for name, value in environment.items() if value is None}
    assert {name.upper() for name in Settings.model_fields} - {name.upper() for name in FIXED} <= passed
    assert not passed & {name.upper() for name in FIXED}


def test_only_the_dashboard_is_reached_from_outside_and_only_prepare_is_root():
    found = services(compose_file(3))
    assert [name for name, service in found.items() if "ports" in service] == ["dashboard"]
    assert found["dashboard"]["ports"] == ["${DASHBOARD_ADDRESS:-127.0.0.1}:${DASHBOARD_PORT:-8501}:8501"]
    assert [name for name, service in found.items() if service.get("user") == "root"] == ["prepare"]
    assert all(service["mem_limit"] for service in found.values())


@pytest.mark.parametrize("compose", COMPOSES, ids=" ".join)
@pytest.mark.parametrize(("clients", "keys"), [(1, True), (3, False), pytest.param(50, True, marks=pytest.mark.slow)])
def test_compose_accepts_it(tmp_path, compose, clients, keys):
    if (
        not shutil.which(compose[0])
        or subprocess.run([*compose, "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip(f"{' '.join(compose)} is not here")
    (tmp_path / "docker-compose.yml").write_text(compose_file(clients, keys))
    (tmp_path / ".env").write_text("FED_ROUNDS=7\nDATA_DIR=./elsewhere\n")
    environment = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields} | {
        "SEED": "5"
    }
    result = subprocess.run(
        [*compose, "config"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "WARN" not in result.stderr.upper()
    found = services(result.stdout)
    assert len(found) == clients + 3
    settings = found["orchestrator"]["environment"]
    assert {str(settings[name]) for name in ("FED_ROUNDS", "SEED", "NUM_CLIENTS")} == {"7", "5", str(clients)}
    assert f"{tmp_path}/elsewhere/clients/client_0_sft.jsonl" in str(found["client_0"]["volumes"])


def test_the_command_writes_it_and_replaces_only_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["compose", "--num-clients", "2"]) == 0
    assert capsys.readouterr().out == "Wrote docker-compose.yml for 2 clients. Next: docker-compose up --build\n"
    assert Path("docker-compose.yml").read_text() == compose_file(2)
    assert main(["compose", "--num-clients", "4", "--keys"]) == 0
    assert Path("docker-compose.yml").read_text() == compose_file(4, keys=True)
    Path("docker-compose.yml").write_text("services: {}\n")
    assert main(["compose"]) == 2
    assert capsys.readouterr().err.startswith(
        "error: docker-compose.yml is not a file that this command has written\n  hint: "
    )
    assert Path("docker-compose.yml").read_text() == "services: {}\n"


@given(clients=st.integers(1, 6), originals=st.sets(st.integers(0, 5)))
def test_peers_of_the_original_protocol_have_no_service(clients, originals):
    originals = tuple(sorted(number for number in originals if number < clients))
    content = yaml.safe_load(compose_file(clients, originals=originals))
    ours = set(range(clients)) - set(originals)
    assert set(content["services"]) == {"prepare", "orchestrator", "dashboard"} | {
        f"client_{number}" for number in ours
    }
    assert set(content["services"]["orchestrator"]["depends_on"]) == {"prepare"} | {
        f"client_{number}" for number in ours
    }
    assert set(content["volumes"]) == {"exchange", "models"} | {f"state_{number}" for number in ours}
    environment = content["services"]["orchestrator"]["environment"]
    assert environment["NUM_CLIENTS"] == clients
    assert environment.get("ORIGINAL_CLIENTS") == (",".join(map(str, originals)) or None)


def test_the_file_says_with_which_command_it_was_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["compose", "--num-clients", "4", "--original-clients", "3,2"]) == 0
    written = Path("docker-compose.yml").read_text()
    assert written.startswith("# Written by `fccl compose --num-clients 4 --original-clients 2,3`.")
    assert written == compose_file(4, originals=(2, 3))


def test_it_can_be_printed_instead(capsys):
    assert main(["compose", "--num-clients", "5", "--out", "-"]) == 0
    assert capsys.readouterr().out == compose_file(5)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--num-clients", "0"], "error: NUM_CLIENTS=0: allowed is a whole number >= 1"),
        (["--original-clients", "3"], "error: original_clients names client 3, num_clients is 3, and the first is 0"),
        (["--original-clients", "a"], "error: ORIGINAL_CLIENTS=a: must be client numbers with commas between"),
        (["--original-clients", "2", "--keys"], "error: --keys does not go with ORIGINAL_CLIENTS=2: they sign nothing"),
        (["--clients", "2"], "error: unknown argument --clients"),
        (["--out", "none/such/file.yml/"], "error: cannot write none/such/file.yml"),
    ],
)
def test_wrong_arguments_are_one_line(tmp_path, monkeypatch, capsys, arguments, error):
    monkeypatch.chdir(tmp_path)
    Path("none").write_text("a file")
    assert main(["compose", *arguments]) in (1, 2)
    assert capsys.readouterr().err.startswith(error)


def test_what_containers_hold_apart_cannot_be_named_from_outside():
    """STATE_DIR=./state in `.env` is for clients on the host: one folder for all containers would be private to
    none."""
    content = compose_file(3)
    assert "STATE_DIR" not in content
    assert "state_dir" in FIXED
