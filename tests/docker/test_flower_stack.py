"""`docker-compose.flower.yml` for real: TLS, node keys, the proxy, three sites, and who is not let through."""

from __future__ import annotations

import http.client
import socket
import ssl
import urllib.request

import pytest

from fccl.apps.compose_flower import flower_file
from fccl.paths import FlowerPaths
from fccl.records.run import RoundRecord
from fccl.storage.files import sha256_of
from fccl.storage.reading import read_records
from tests.docker.stack import (
    COMPOSES,
    PATIENT,
    ROOT,
    SMALL,
    Stack,
    clean_environment,
    free_port,
    gone_afterwards,
    in_process,
    is_here,
    left_over,
    run,
    torch_index,
    until,
)

pytestmark = pytest.mark.docker
FILE = "docker-compose.flower.yml"
HERE = [compose for compose in COMPOSES if is_here(compose)]
FEW = {**SMALL, "MAX_SFT_EXAMPLES": "150", "MAX_VA_EXAMPLES": "90", "FED_ROUNDS": "1"}  # one round of each phase
FLEET, REFUSED = "/v1/fleet/activate-node", (400, 403)  # the proxy's own: a path that is none, one that is not let in
# Calls that run code at every site or read what others have sent, and ways around the proxy's path.
CALLS = (
    *("/v1/control/start-run", "/v1/control/list-runs", "/v1/control/register-node", "/v1/runtime/acquire-task"),
    *("/v1/runtime/pull-messages", "/v1/runtime/push-object", "/health", "/docs", "/openapi.json", "/"),
    *("/v1/fleet", "/v1/fleet/", "/v1/fleet/../control/list-runs", "/v1/fleet/%2e%2e/control/list-runs"),
    *("/v1/fleet/..%2fcontrol%2flist-runs", "/v1/fleet//../../v1/control/list-runs", "//v1/control/list-runs"),
    *("/V1/control/list-runs", "/v1/control/list-runs?/v1/fleet/x", "/v1/control/list-runs#/v1/fleet/x"),
    *("/v1/control/list-runs;/v1/fleet/x", "/v1/fleet/pull-messages/../../control/list-runs"),
)


@pytest.fixture(scope="module", autouse=True)
def images():
    """Built by the committed compose file, once; layers that have not changed are kept from one time to the next."""
    assert HERE, "neither docker-compose nor docker compose is here"
    environment = clean_environment(BUILD_NETWORK="host") | torch_index()
    run(*HERE[0], "-f", FILE, "build", timeout=1500, cwd=ROOT, env=environment)


def test_two_rounds_have_the_bytes_of_one_process_over_kills_and_others_are_not_let_through(tmp_path):
    """A site's worker and another's SuperNode are killed in the second round."""
    (tmp_path / FILE).write_text(flower_file(3))
    ports = {"DASHBOARD_PORT": free_port(), "PROXY_PORT": free_port()}
    up = Stack(tmp_path, HERE[0], {**FEW, **PATIENT, **ports}, FILE)
    with gone_afterwards(up):
        up("up", "-d")
        outside = Outside(tmp_path, int(ports["PROXY_PORT"]))
        until(lambda: outside.status(FLEET) not in (None, 502), "an answer of the SuperLink")
        assert_only_supernodes_are_let_through(outside)
        until(lambda: read_records(up.logs.progress, RoundRecord), "the first round", 300)
        up.kill("client_1")
        up.kill("supernode_2")
        assert len(read_records(up.logs.progress, RoundRecord)) == 1, "the kills came too late"
        until(lambda: up.ended("orchestrator"), "the end of the run", 600)
        assert up.container("orchestrator")["State"]["ExitCode"] == 0
        records = read_records(up.logs.progress, RoundRecord)
        assert [(record.phase, record.clients) for record in records] == [("sft", (0, 1, 2)), ("va", (0, 1, 2))]
        restarts = {name: up.container(name)["RestartCount"] for name in ("client_0", "client_1", "supernode_2")}
        assert (restarts["client_0"], restarts["client_1"]) == (0, 1)
        assert restarts["supernode_2"] >= 1, "again until the SuperLink, which believes it online, takes it back"
        page = f"http://127.0.0.1:{ports['DASHBOARD_PORT']}/_stcore/health"
        assert urllib.request.urlopen(page, timeout=10).read() == b"ok"
        assert_containers_see_no_more_than_they_need(up)
    assert left_over(up.project) == ""
    assert sha256_of(up.logs.global_final) == in_process(tmp_path / "in-process", **FEW)


class Outside:
    """Somebody on another host, who has the CA's certificate and nothing else."""

    def __init__(self, folder, port):
        self.ca, self.port = FlowerPaths(folder / "flower").site(0).ca, port

    def status(self, path, method="POST"):
        """The proxy's answer to a call, as it is written here; None where there is none."""
        try:
            context = ssl.create_default_context(cafile=str(self.ca))
            with (
                socket.create_connection(("127.0.0.1", self.port), 10) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as secure,
            ):
                head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                secure.sendall(f"{head}Content-Type: application/protobuf\r\nContent-Length: 0\r\n\r\n".encode())
                response = http.client.HTTPResponse(secure)
                response.begin()
                return response.status
        except OSError:
            return None


def assert_only_supernodes_are_let_through(outside):
    assert outside.status(FLEET) == 401, "it reaches the SuperLink, which asks for a node key"
    assert {path: status for path in CALLS if (status := outside.status(path)) not in REFUSED} == {}
    assert outside.status(FLEET, "GET") in REFUSED
    with socket.create_connection(("127.0.0.1", outside.port), 10) as plain:
        plain.sendall(f"POST {FLEET} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode())
        assert b" 400 " in plain.recv(1000).split(b"\r\n")[0], "nothing is answered without TLS"


REACHES = """
import socket, sys
for host, port in (("superlink", 8000), ("proxy", 8443), ("192.0.2.1", 80)):
    try: socket.create_connection((host, port), 3).close(); print(host)
    except OSError: pass
"""


def assert_containers_see_no_more_than_they_need(up):
    """A site's SuperNode reaches the proxy, not the SuperLink; its worker reaches nothing."""
    for service, reached in (("supernode_0", ["proxy"]), ("superexec", ["superlink", "proxy"]), ("client_0", [])):
        assert up.inside(service, f"python - <<'END'\n{REACHES}\nEND").split() == reached, service
    keys = "find flower -type f ! -readable; find flower -type f | sort"
    assert up.inside("supernode_1", keys).split() == ["flower/site_1/ca.pem", "flower/site_1/node.key"]
    own = ["flower/site_1/keys/client_1.key", "flower/site_1/keys/public.json"]
    assert up.inside("client_1", keys).split() == own
    assert not [line for line in up.inside("proxy", keys).split() if not line.startswith("flower/superlink/")]
