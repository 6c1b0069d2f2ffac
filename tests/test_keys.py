import json
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.errors import SettingsError
from fccl.keys import client_keys, create_keys, server_keys
from fccl.paths import KeyPaths


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    paths = KeyPaths(tmp_path_factory.mktemp("keys") / "keys")
    create_keys(paths, 3)
    return paths


@given(st.binary(max_size=200), st.integers(0, 2))
def test_what_a_client_signs_is_its_own_and_nobody_elses(folder, content, client_id):
    keys = client_keys(folder, client_id)
    signature = keys.sign(content)
    assert keys.sign(content) == signature, "the same key and content give the same signature"
    assert [keys.public.is_of_client(other, content, signature) for other in range(4)] == [
        other == client_id for other in range(4)
    ]
    assert not keys.public.is_of_server(content, signature)
    assert not keys.public.is_of_client(client_id, content + b"x", signature)


@given(st.text(max_size=100))
def test_text_that_is_no_signature_is_none(folder, text):
    public = server_keys(folder).public
    assert not public.is_of_server(b"content", text)


def test_the_server_signs(folder):
    keys = server_keys(folder)
    assert keys.public.is_of_server(b"content", keys.sign(b"content"))


def test_private_keys_are_for_their_owner_alone(folder):
    for path in (folder.server, *map(folder.client, range(3))):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert set(json.loads(folder.public.read_text())["clients"]) == {"0", "1", "2"}


def test_keys_are_never_overwritten(folder):
    before = folder.server.read_bytes()
    with pytest.raises(SettingsError, match="holds keys already"):
        create_keys(folder, 5)
    assert folder.server.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no key",
        b'{"server": "", "server": "", "clients": {}}',
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    ],
)
def test_a_file_that_is_no_key_is_one_line(tmp_path, content):
    paths = KeyPaths(tmp_path)
    create_keys(paths, 1)
    paths.client(0).write_bytes(content)
    with pytest.raises(SettingsError, match="holds no key"):
        client_keys(paths, 0)
    paths.public.write_text("{}")
    with pytest.raises(SettingsError, match=r"public\.json holds no key"):
        server_keys(paths)


def test_keys_that_are_missing_or_do_not_belong_together_are_named(tmp_path):
    paths, others = KeyPaths(tmp_path / "one"), KeyPaths(tmp_path / "two")
    with pytest.raises(SettingsError, match=r"public\.json is not there"):
        server_keys(paths)
    create_keys(paths, 2)
    create_keys(others, 2)
    with pytest.raises(SettingsError, match=r"client_7\.key is not there"):
        client_keys(paths, 7)
    paths.client(0).write_bytes(others.client(0).read_bytes())
    with pytest.raises(SettingsError, match=r"client_0\.key is not the key that public\.json beside it names"):
        client_keys(paths, 0)


@pytest.mark.parametrize(
    ("mode", "said"),
    [(0o600, False), (0o400, False), (0o640, True), (0o604, True), (0o644, True), (0o660, True), (0o777, True)],
)
def test_a_private_key_that_others_can_read_is_said(tmp_path, mode, said):
    paths = KeyPaths(tmp_path)
    create_keys(paths, 2)
    for path, read in ((paths.server, lambda: server_keys(paths)), (paths.client(1), lambda: client_keys(paths, 1))):
        path.chmod(mode)
        expected = f"{path} can be read by others than its owner (mode {mode:04o}): chmod 600 where that is possible"
        assert read().warning == (expected if said else "")


@pytest.mark.parametrize("left", ["client_0.key", "client_1.key", "server.key"])
def test_keys_of_a_command_that_was_killed_are_not_overwritten(tmp_path, left):
    paths = KeyPaths(tmp_path)
    (tmp_path / left).write_text("somebody's")
    with pytest.raises(SettingsError, match="holds keys already"):
        create_keys(paths, 2)
    assert (tmp_path / left).read_text() == "somebody's"
    assert [path.name for path in tmp_path.iterdir()] == [left]
