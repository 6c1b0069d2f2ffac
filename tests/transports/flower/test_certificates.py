"""Certificates against a verifier of RFC 5280 that is not ours, and against a handshake."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fccl.errors import SettingsError
from fccl.transports.flower import certificates
from fccl.transports.flower.certificates import (
    AUTHORITY_DAYS,
    SERVER_DAYS,
    expires,
    new_authority,
    require_host,
    server_certificate,
)
from tests.examples import few

HOSTS = ("fl.example.org", "192.0.2.7", "2001:db8::7", "localhost")
LABEL = st.from_regex(r"\A[a-z]([a-z0-9-]{0,10}[a-z0-9])?\Z")


@pytest.fixture(scope="module")
def authority():
    return new_authority()


@pytest.fixture(scope="module")
def server(authority):
    return server_certificate(authority.certificate, authority.key, HOSTS)


def subject(host):
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def verified(authority, certificate, host, time=None):
    store = Store([x509.load_pem_x509_certificate(authority)])
    builder = PolicyBuilder().store(store)
    verifier = (builder.time(time) if time else builder).build_server_verifier(subject(host))
    return verifier.verify(x509.load_pem_x509_certificate(certificate), [])


@pytest.mark.parametrize("host", HOSTS)
def test_the_certificate_is_valid_for_each_of_its_hosts(authority, server, host):
    assert len(verified(authority.certificate, server.certificate, host)) == 2


@pytest.mark.parametrize("host", ["example.org", "a.fl.example.org", "192.0.2.8", "2001:db8::8"])
def test_it_is_valid_for_no_other(authority, server, host):
    with pytest.raises(VerificationError):
        verified(authority.certificate, server.certificate, host)


def test_another_authority_does_not_vouch_for_it(server):
    with pytest.raises(VerificationError):
        verified(new_authority().certificate, server.certificate, HOSTS[0])


def test_it_lasts_as_long_as_is_said_and_no_longer(authority, server):
    now = datetime.datetime.now(datetime.UTC)
    for issued, days in ((authority, AUTHORITY_DAYS), (server, SERVER_DAYS)):
        assert expires(issued.certificate) == issued.until
        assert abs(issued.until - now - datetime.timedelta(days=days)) < datetime.timedelta(minutes=5)
    hour = datetime.timedelta(hours=1)
    assert verified(authority.certificate, server.certificate, HOSTS[0], server.until - hour)
    with pytest.raises(VerificationError):
        verified(authority.certificate, server.certificate, HOSTS[0], server.until + hour)


def test_a_server_s_certificate_issues_no_other(authority, server):
    """Its key signs a handshake, and nothing that is signed with it as an authority is believed."""
    forged = server_certificate(server.certificate, server.key, HOSTS)
    store = Store([x509.load_pem_x509_certificate(authority.certificate)])
    verifier = PolicyBuilder().store(store).build_server_verifier(subject(HOSTS[0]))
    with pytest.raises(VerificationError):
        verifier.verify(
            x509.load_pem_x509_certificate(forged.certificate), [x509.load_pem_x509_certificate(server.certificate)]
        )


def test_a_renewed_certificate_has_another_key(authority, server):
    again = server_certificate(authority.certificate, authority.key, HOSTS)
    assert verified(authority.certificate, again.certificate, HOSTS[0])
    assert again.key != server.key


@settings(max_examples=few(50))
@given(st.lists(LABEL, min_size=1, max_size=4))
def test_names_are_hosts(labels):
    require_host(".".join(labels))


WORDS = ["", " ", "a b", "http://a", "a:8000", "a/b", ".a", "a.", "-a", "a" * 64, "x\n", "ä", "*.example.org"]
NUMBERS = [
    "8000",
    "192.0.2",
    "300.1.2.3",
    "192.0.2.07",
    "192.0.2.7:8443",
    "[2001:db8::7]",
    "[::1]:8443",
    "192.0.2.7/24",
]


@pytest.mark.parametrize("host", [*WORDS, *NUMBERS])
def test_what_is_no_host_is_one_line(host):
    with pytest.raises(SettingsError, match="is neither a host's name nor an address"):
        require_host(host)


@pytest.mark.parametrize("host", ["fe80::1%eth0", "2001:db8::7%1"])
def test_an_address_with_a_zone_is_no_other_host_s_to_call(host):
    with pytest.raises(SettingsError, match="has a zone, which is another network on every host"):
        require_host(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "255.255.255.255", "224.0.0.1", "ff02::1"])
def test_an_address_of_all_hosts_or_of_none_is_refused(host):
    with pytest.raises(SettingsError, match="is not the address of one host"):
        require_host(host)


def refusal(host):
    try:
        require_host(host)
    except SettingsError as error:
        return str(error)
    return ""


# Underscores too: names of services and of Windows hosts have them, and TLS compares names as they are.
LABELS = st.one_of(LABEL, st.from_regex(r"\A[a-z_-]{1,3}\Z"))


@settings(max_examples=few(100), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(host=st.one_of(st.ip_addresses().map(str), st.lists(LABELS, min_size=1, max_size=4).map(".".join), st.text()))
@example(host="_")
@example(host="fccl_server.lan")
def test_a_host_is_refused_in_one_line_or_called_under_its_name(authority, tmp_path, host):
    """Called over the system's own TLS: the reference of the tests beside this one knows no underscore."""
    if said := refusal(host):
        assert len(said.splitlines()) == 1
        return
    issued = server_certificate(authority.certificate, authority.key, ["fl.example.org", host])
    accepting, calling = contexts(tmp_path, authority, issued)
    assert handshake(accepting, calling, host)
    assert not handshake(accepting, calling, "fl.example.com")


def test_a_handshake_succeeds_with_the_authority_and_with_no_other(authority, server, tmp_path):
    """The system's own TLS, as nginx, uvicorn and httpx use it."""
    for signed_by, works in ((authority, True), (new_authority(), False)):
        assert handshake(*contexts(tmp_path, signed_by, server), "localhost") is works


def contexts(folder, authority, server):
    """The two ends of TLS: a server with this certificate, and a client that believes this authority alone."""
    (folder / "certificate").write_bytes(server.certificate)
    (folder / "key").write_bytes(server.key)
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    accepting.load_cert_chain(folder / "certificate", folder / "key")
    return accepting, ssl.create_default_context(cadata=authority.certificate.decode())


def handshake(accepting, calling, host):
    """Whether a client that calls this host believes the server."""
    here, there = socket.socketpair()

    def accept():
        try:
            accepting.wrap_socket(there, server_side=True).close()
        except OSError:
            there.close()

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        calling.wrap_socket(here, server_hostname=host).close()
    except ssl.SSLCertVerificationError:
        return False
    finally:
        here.close()
        thread.join()
    return True


def test_what_is_no_key_of_an_authority_is_one_line(authority):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    other = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(SettingsError, match="the authority's key is no EC key"):
        certificates.server_certificate(authority.certificate, other, HOSTS)
