"""`docker-compose.flower.yml`: who sees what, and who reaches whom. Whether it works is for `make test-docker`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.apps.compose_flower import flower_file
from fccl.apps.compose_parts import FIXED
from fccl.apps.main import main
from fccl.config import Settings
from fccl.paths import DataPaths, FlowerPaths
from fccl.specs import PHASES
from fccl.transports.flower.quiet import QUIET
from tests.apps.test_compose import ROOT, mounts, services
from tests.examples import few

FLOWER = FlowerPaths(Path("flower"))
OURS = {"prepare", "superlink", "superexec", "register", "proxy", "orchestrator", "dashboard"}


def seen(service):
    """What a service sees below its folder, and whether it may change it."""
    return {inside: mode for inside, (_, mode) in mounts(service).items()}


def test_the_committed_file_is_what_the_command_writes(tmp_path, monkeypatch, capsys):
    committed = (ROOT / "docker-compose.flower.yml").read_text()
    assert committed == flower_file(3), "write it anew: `fccl compose --flower`"
    monkeypatch.chdir(tmp_path)
    assert main(["compose", "--flower"]) == 0
    assert Path("docker-compose.flower.yml").read_text() == committed
    assert "Next: docker-compose -f docker-compose.flower.yml up --build" in capsys.readouterr().out


@pytest.mark.parametrize("flag", [["--keys"], ["--own-files"], ["--original-clients", "1"]])
def test_what_does_not_go_with_it_is_one_line(flag, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["compose", "--flower", *flag]) == 2
    assert capsys.readouterr().err.startswith(f"error: {flag[0]} does not go with --flower\n")
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=few(20))
@given(st.integers(1, 12))
def test_a_site_s_supernode_sees_its_node_key_and_its_worker_its_data_and_its_signing_key(clients):
    found = services(flower_file(clients))
    assert set(found) == OURS | {f"{name}_{number}" for number in range(clients) for name in ("supernode", "client")}
    for number in range(clients):
        site, node, worker = FLOWER.site(number), found[f"supernode_{number}"], found[f"client_{number}"]
        assert seen(node) == {str(site.ca): "ro", str(site.node_key): "ro", "site": ""}
        shard = {str(DataPaths(Path("data")).shard(number, phase)): "ro" for phase in PHASES}
        keys = {str(site.keys.client(number)): "ro", str(site.keys.public): "ro"}
        assert seen(worker) == shard | keys | {"models": "ro", "site": "", "state": ""}
        assert mounts(node)["site"] == mounts(worker)["site"] == (f"site_{number}", "")
        assert worker["environment"]["CLIENT_ID"] == number
        assert worker["environment"]["KEYS_DIR"] == str(site.keys.root)
        assert f'--node-config=client-id={number} exchange-dir="/fccl/site"' in node["command"]


def test_a_superlink_is_reached_from_outside_by_the_proxy_alone():
    content = yaml.safe_load(flower_file(3))
    assert content["networks"] == {"inside": {"internal": True}, "sites": {"internal": True}}
    networks = {
        name: set(service.get("networks", ["default"]))
        for name, service in content["services"].items()
        if "network_mode" not in service
    }
    assert networks == {
        **{name: {"inside"} for name in ("superlink", "superexec", "register", "orchestrator")},
        **{f"supernode_{number}": {"sites"} for number in range(3)},
        "proxy": {"inside", "sites", "default"},
        **{name: {"default"} for name in ("prepare", "dashboard")},
    }
    isolated = [name for name, service in content["services"].items() if service.get("network_mode") == "none"]
    assert isolated == [f"client_{number}" for number in range(3)]
    published = {name: service["ports"] for name, service in content["services"].items() if "ports" in service}
    assert published == {
        "proxy": ["${PROXY_ADDRESS:-127.0.0.1}:${PROXY_PORT:-8443}:8443"],
        "dashboard": ["${DASHBOARD_ADDRESS:-127.0.0.1}:${DASHBOARD_PORT:-8501}:8501"],
    }


def test_the_superlink_and_the_proxy_have_no_signing_key_and_nobody_but_prepare_the_authority_s():
    found = services(flower_file(3))
    assert seen(found["superlink"]) == {"flower/superlink": "ro", "superlink": ""}
    assert seen(found["proxy"]) == {"flower/superlink": "ro"}
    for name, service in found.items():
        assert name == "prepare" or not {"flower", "flower/authority"} & set(seen(service)), name
    signers = [name for name, service in found.items() if "flower/server" in seen(service)]
    assert signers == ["superexec", "register", "orchestrator"]


def test_the_superlink_lets_in_registered_nodes_over_tls_only():
    command = services(flower_file(3))["superlink"]["command"]
    assert "--enable-supernode-auth" in command
    assert "--isolation=process" in command
    assert not [word for word in command if "insecure" in word]
    assert {word.split("=")[0] for word in command if "ssl" in word} == {
        "--ssl-certfile",
        "--ssl-keyfile",
        "--ssl-ca-certfile",
    }


def test_flower_s_processes_are_quiet_and_install_nothing():
    found = services(flower_file(3))
    for name in ("superlink", "superexec", "supernode_0", "supernode_1", "supernode_2"):
        assert {key: found[name]["environment"][key] for key in QUIET} == QUIET, name


def test_every_service_is_confined():
    for name, service in services(flower_file(3)).items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["pids_limit"] == 1024, name
        assert ("cap_add" in service) == (name == "prepare"), name
        assert service["user"] == ("root" if name == "prepare" else "${FCCL_UID:-1000}:${FCCL_GID:-1000}"), name
        assert service.get("pid", "") == ("service:superexec" if name == "orchestrator" else ""), name
        assert not service.keys() & {"privileged", "devices", "ipc", "userns_mode"}, name


@pytest.mark.parametrize("service", ["prepare", "orchestrator", "client_0"])
def test_every_setting_reaches_the_containers_but_an_open_federation(service):
    environment = services(flower_file(3))[service]["environment"]
    passed = {name for name, value in environment.items() if value is None}
    assert {name.upper() for name in Settings.model_fields} - {name.upper() for name in FIXED} - {"OPEN"} <= passed
