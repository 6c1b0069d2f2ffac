"""Node keys: the EC keys by which a SuperLink knows a site's SuperNode. Loads no Flower."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_public_key,
)

from fccl.errors import SettingsError

NodeKeys = Mapping[int, bytes]  # client -> its SuperNode's public key, as a SuperLink shows it: PEM
_FILE = re.compile(r"client_(0|[1-9][0-9]{0,8})\.pub")
_MOST_BYTES = 10_000


def new_node_key() -> tuple[bytes, bytes]:
    """A private key on P-384 and its public key, in OpenSSH's forms, which Flower reads."""
    key = ec.generate_private_key(ec.SECP384R1())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()), public + b"\n"


def read_node_keys(folder: Path) -> dict[int, bytes]:
    """Each client's node key, of the `client_i.pub` of a folder. Raises `SettingsError` where there are none."""
    hint = "`fccl flower init` makes them; --bundle names the folder `server` that it has written"
    try:
        paths = sorted(path for path in folder.iterdir() if _FILE.fullmatch(path.name))
        found = {int(path.stem.removeprefix("client_")): _pem(path) for path in paths}
    except OSError as error:
        raise SettingsError(f"the node keys in {folder} cannot be read: {error.strerror}", hint=hint) from error
    if not found:
        raise SettingsError(f"there is no node key in {folder}", hint=hint)
    if len(set(found.values())) < len(found):
        raise SettingsError(f"two clients have one node key in {folder}", hint=hint)
    return found


def _pem(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES)
    try:
        key = load_ssh_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise SettingsError(f"{path} is no EC public key in OpenSSH's form", hint="`fccl flower init` makes them")
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
