"""Waiting for a SuperLink: one that is just starting, one that is none, one whose certificate is another's."""

from __future__ import annotations

import http.server
import ssl
import threading
from contextlib import contextmanager

import pytest

from fccl.apps.flower_superlink import SuperLink, require_address
from fccl.errors import FederationError, SettingsError
from fccl.testing.loopback import free_port
from fccl.transports.flower import certificates
from fccl.transports.flower.certificates import new_authority, server_certificate


class Answering(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self):
        assert self.path == "/health", "what a SuperLink answers at"
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def answering(port=0, status=200, context=None):
    """Something that answers. Yields its port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), type("Answers", (Answering,), {"status": status}))
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def authority():
    return new_authority()


def tls(folder, authority, hosts=("127.0.0.1",)):
    """The path of the CA's certificate, and a server's context."""
    issued = server_certificate(authority.certificate, authority.key, hosts)
    for name, content in (("ca.pem", authority.certificate), ("c.pem", issued.certificate), ("k.pem", issued.key)):
        (folder / name).write_bytes(content)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "c.pem", folder / "k.pem")
    return str(folder / "ca.pem"), context


def test_one_that_answers_is_waited_for_without_a_word():
    said = []
    with answering() as port:
        SuperLink(f"127.0.0.1:{port}").wait(10, said.append)
    assert said == []


def test_one_that_is_just_starting_is_waited_for_with_one_line():
    port, said, begun = free_port(), [], threading.Event()

    def tell(line):
        said.append(line)
        begun.set()

    waiting = threading.Thread(target=SuperLink(f"127.0.0.1:{port}").wait, args=(60, tell))
    waiting.start()
    assert begun.wait(30)
    with answering(port):
        waiting.join(30)
        assert not waiting.is_alive()
    assert said == [f"Waiting for the SuperLink at 127.0.0.1:{port}, at most 60 s ..."]


def test_one_that_does_not_come_is_one_line_with_the_reason():
    port = free_port()
    with pytest.raises(FederationError, match=rf"at 127\.0\.0\.1:{port} has not answered for 0 s: .*refused") as error:
        SuperLink(f"127.0.0.1:{port}").wait(0, lambda line: None)
    assert error.value.hint.startswith("`flower-superlink` starts one")


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_proxy_or_another_server_is_not_waited_for(status):
    with answering(status=status) as port, pytest.raises(FederationError, match=rf"\(status {status}\)") as error:
        SuperLink(f"127.0.0.1:{port}").wait(60, lambda line: None)
    assert "call this on the SuperLink's own host" in error.value.hint


def test_with_tls_the_authority_s_server_is_believed_and_another_s_is_not(tmp_path, authority):
    said = []
    certificate, context = tls(tmp_path, authority)
    other = tmp_path / "other.pem"
    other.write_bytes(new_authority().certificate)
    with answering(context=context) as port:
        SuperLink(f"127.0.0.1:{port}", certificate).wait(10, said.append)
        with pytest.raises(FederationError, match=r"cannot show a certificate of .*other"):
            SuperLink(f"127.0.0.1:{port}", str(other)).wait(60, said.append)
    assert said == []


def test_a_certificate_for_another_host_is_not_believed(tmp_path, authority):
    certificate, context = tls(tmp_path, authority, ("elsewhere.example.org",))
    with answering(context=context) as port, pytest.raises(FederationError, match="mismatch"):
        SuperLink(f"127.0.0.1:{port}", certificate).wait(60, lambda line: None)


@pytest.mark.parametrize(("days", "told"), [(12, "expires in 11 days"), (2, "expires in 1 day."), (40, "")])
def test_a_certificate_that_soon_expires_is_said(tmp_path, authority, monkeypatch, days, told):
    monkeypatch.setattr(certificates, "SERVER_DAYS", days)
    said = []
    certificate, context = tls(tmp_path, authority)
    with answering(context=context) as port:
        SuperLink(f"127.0.0.1:{port}", certificate).wait(10, said.append)
    assert [line for line in said if told and told in line] == said
    assert len(said) == bool(told)


def test_one_that_has_expired_is_refused_with_the_way_out(tmp_path, authority, monkeypatch):
    monkeypatch.setattr(certificates, "SERVER_DAYS", 0)
    certificate, context = tls(tmp_path, authority)
    with answering(context=context) as port, pytest.raises(FederationError, match="expired") as error:
        SuperLink(f"127.0.0.1:{port}", certificate).wait(60, lambda line: None)
    assert "`fccl flower init --renew`" in error.value.hint


@pytest.mark.parametrize("address", ["", "8000", "host", "host:", "host:0", "host:70000", "host:x"])
def test_what_is_no_address_is_one_line(address):
    with pytest.raises(SettingsError, match="is no HOST:PORT"):
        require_address(address)
