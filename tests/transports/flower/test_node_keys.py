"""Node keys as Flower reads them."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key
from flwr.cli.supernode.register import try_load_public_key
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from fccl.errors import SettingsError
from fccl.transports.flower.node_keys import new_node_key, read_node_keys


def test_the_private_key_is_what_a_supernode_loads_and_the_public_one_is_its(tmp_path):
    """As `flower-supernode` and `flwr supernode register` read them, and as the SuperLink then shows the key."""
    for number in range(2):
        private, public = new_node_key()
        (tmp_path / f"client_{number}.pub").write_bytes(public)
        loaded = load_ssh_private_key(private, None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        registered = try_load_public_key(tmp_path / f"client_{number}.pub")
        assert public_key_to_bytes(loaded.public_key()) == registered == read_node_keys(tmp_path)[number]


def test_other_files_are_no_node_keys(tmp_path):
    _, public = new_node_key()
    for name in ("client_0.pub", "client_00.pub", "client_x.pub", "client_1.pub.bak", "README"):
        (tmp_path / name).write_bytes(public)
    assert list(read_node_keys(tmp_path)) == [0]


@pytest.mark.parametrize("content", [b"", b"ssh-rsa AAAA", b"\xff" * 20_000, None])
def test_what_is_no_ec_key_is_one_line(tmp_path, content):
    if content is None:
        content = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    (tmp_path / "client_0.pub").write_bytes(content)
    with pytest.raises(SettingsError, match=r"client_0\.pub is no EC public key in OpenSSH's form"):
        read_node_keys(tmp_path)


def test_no_keys_and_one_key_for_two_are_one_line(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read: No such file or directory"):
        read_node_keys(tmp_path / "none")
    with pytest.raises(SettingsError, match="there is no node key in"):
        read_node_keys(tmp_path)
    _, public = new_node_key()
    for number in range(2):
        (tmp_path / f"client_{number}.pub").write_bytes(public)
    with pytest.raises(SettingsError, match="two clients have one node key"):
        read_node_keys(tmp_path)
