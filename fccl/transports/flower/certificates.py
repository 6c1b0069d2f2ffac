"""Certificates of a deployment: an authority of its own, and the SuperLink's certificate (X.509, RFC 5280)."""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fccl.errors import SettingsError

AUTHORITY_DAYS, SERVER_DAYS = 3650, 730
_EARLIER = datetime.timedelta(days=1)  # a site's clock may be behind
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOSTS = (
    "--hosts takes the server's names and addresses with commas between, without ports and brackets: "
    "fl.example.org,192.0.2.7"
)
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")


@dataclass(frozen=True)
class Issued:
    """A certificate and its private key as PEM, and the moment at which it expires."""

    certificate: bytes
    key: bytes
    until: datetime.datetime


def new_authority() -> Issued:
    """An authority that signs itself and lasts ten years."""
    key = ec.generate_private_key(ec.SECP384R1())
    usage = _usage(key_cert_sign=True, crl_sign=True)
    extensions = [x509.BasicConstraints(ca=True, path_length=0), usage]
    return _issued("FCCL federation", key, "FCCL federation", key, AUTHORITY_DAYS, extensions)


def server_certificate(authority: bytes, authority_key: bytes, hosts: Iterable[str]) -> Issued:
    """A server's certificate for these names and addresses, which lasts two years. `require_host` checks each.

    Raises `SettingsError` for a key that is no authority's.
    """
    issuer = x509.load_pem_x509_certificate(authority).subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    signs = load_pem_private_key(authority_key, password=None)
    if not isinstance(signs, ec.EllipticCurvePrivateKey):
        raise SettingsError("the authority's key is no EC key", hint="use the folder that `fccl flower init` wrote")
    names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
    extended = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    extensions = [x509.BasicConstraints(ca=False, path_length=None), _usage(), extended, names]
    return _issued(
        "FCCL SuperLink", ec.generate_private_key(ec.SECP384R1()), str(issuer), signs, SERVER_DAYS, extensions
    )


def expires(certificate: bytes) -> datetime.datetime:
    """The moment at which a certificate expires, UTC. Raises `ValueError` for what is no certificate."""
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc


def require_host(host: str, hint: str = _HOSTS) -> None:
    """Raises `SettingsError` for what is neither a host's name nor its address, or no address that others can call."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if not _NAME.fullmatch(host) or host.rpartition(".")[2].isdecimal():  # as no top-level domain is
            raise SettingsError(f"{host!r} is neither a host's name nor an address", hint=hint) from None
        return
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        raise SettingsError(f"{host!r} has a zone, which is another network on every host", hint=hint)
    if address.is_unspecified or address.is_multicast or host == "255.255.255.255":
        raise SettingsError(f"{host!r} is not the address of one host, and nobody can call it", hint=hint)


def _general_name(host: str) -> x509.GeneralName:
    """Of every host that `require_host` has let through, now or in an earlier version."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    """A key that signs certificates, or one that signs a TLS handshake."""
    return x509.KeyUsage(
        digital_signature=not key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _issued(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    signs: ec.EllipticCurvePrivateKey,
    days: int,
    extensions: Iterable[x509.ExtensionType],
) -> Issued:
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    until = now + datetime.timedelta(days=days)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_common_name(name))
        .issuer_name(_common_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signs.public_key()), critical=False)
    )
    for extension in extensions:
        builder = builder.add_extension(
            extension, critical=isinstance(extension, x509.BasicConstraints | x509.KeyUsage)
        )
    certificate = builder.sign(signs, hashes.SHA384()).public_bytes(Encoding.PEM)
    return Issued(certificate, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), until)


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
