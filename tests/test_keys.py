import json
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.apps.main import main
from fccl.errors import SettingsError
from fccl.keys import PublicKeys, add_keys, client_keys, create_keys, revoke_keys, server_keys
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


@pytest.fixture
def own(tmp_path):
    paths = KeyPaths(tmp_path / "keys")
    create_keys(paths, 2)
    return paths


@given(st.lists(st.sampled_from(["add", "add two", "revoke"]), max_size=6))
def test_a_number_is_given_to_one_client_ever(tmp_path_factory, steps):
    paths = KeyPaths(tmp_path_factory.mktemp("keys"))
    create_keys(paths, 1)
    given_so_far, revoked = [0], set()
    for step in steps:
        if step == "revoke":
            revoke_keys(paths, {given_so_far[-1]})
            revoked.add(given_so_far[-1])
        else:
            given_so_far.extend(add_keys(paths, 1 + (step == "add two")))
    public = server_keys(paths).public
    assert len(set(given_so_far)) == len(given_so_far)
    assert set(public.revoked) == revoked
    assert set(public.clients) == set(given_so_far) - revoked


def test_a_server_at_work_follows_its_keys_and_keeps_the_others(own):
    keys = server_keys(own)
    first = keys.public
    assert keys.current() == first
    assert add_keys(own, 1) == (2,)
    assert keys.current().clients.keys() == {0, 1, 2}
    signature = client_keys(own, 2).sign(b"content")
    assert keys.current().is_of_client(2, b"content", signature)
    revoke_keys(own, {2, 0})
    now = keys.current()
    assert (set(now.clients), set(now.revoked)) == ({1}, {0, 2})
    assert not now.is_of_client(2, b"content", signature)
    assert now.clients[1] == first.clients[1]
    assert (now.server, keys.public) == (first.server, first)


def test_a_link_to_the_public_keys_is_followed_too(own, tmp_path):
    linked = KeyPaths(tmp_path / "linked")
    linked.root.mkdir()
    linked.public.symlink_to(own.public)
    linked.server.symlink_to(own.server)
    keys = server_keys(linked)
    add_keys(own, 1)
    assert set(keys.current().clients) == {0, 1, 2}


def test_a_public_file_without_revoked_keys_is_what_it_always_was(own):
    assert set(json.loads(own.public.read_text())) == {"server", "clients"}
    revoke_keys(own, {1})
    assert set(json.loads(own.public.read_text())) == {"server", "clients", "revoked"}


def test_a_key_of_a_command_that_was_killed_is_passed_over_and_never_written_over(own):
    own.client(3).write_bytes(b"half a command's")
    assert add_keys(own, 2) == (4, 5)
    assert own.client(3).read_bytes() == b"half a command's"
    assert stat.S_IMODE(own.client(4).stat().st_mode) == 0o600


def test_to_revoke_twice_is_once_and_who_has_no_key_cannot_be_revoked(own):
    revoke_keys(own, {1})
    before = own.public.read_bytes()
    revoke_keys(own, {1})
    assert own.public.read_bytes() == before
    with pytest.raises(SettingsError, match="there is no key of client 7"):
        revoke_keys(own, {0, 7})
    assert own.public.read_bytes() == before
    with pytest.raises(SettingsError, match="the key of client 1 is revoked"):
        client_keys(own, 1)


def test_a_number_whose_key_is_revoked_has_no_other(own):
    public = server_keys(own).public
    with pytest.raises(ValueError, match="its number is never given again"):
        PublicKeys(server=public.server, clients=public.clients, revoked={1: public.clients[1]})


@pytest.mark.parametrize("change", [lambda paths: add_keys(paths, 1), lambda paths: revoke_keys(paths, {0})])
def test_where_there_are_no_keys_none_is_added_or_revoked(tmp_path, change):
    with pytest.raises(SettingsError, match=r"public\.json is not there"):
        change(KeyPaths(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--add", "2"], "Wrote client_2.key, client_3.key"),
        (["--revoke", "0,1"], "Revoked in "),
        (["--revoke", "x"], "--revoke x: must be client numbers with commas between"),
        (["--revoke", "9"], "there is no key of client 9"),
        (["--add", "1", "--revoke", "0"], "--add and --revoke are two steps"),
        ([], "holds keys already"),
    ],
)
def test_the_command_adds_and_revokes_and_says_what_to_do_next(own, capsys, arguments, said):
    status = main(["keys", "--keys-dir", str(own.root), *arguments])
    found = capsys.readouterr()
    assert said in found.out + found.err
    assert (status == 0) == ("Wrote" in said or "Revoked" in said)
    assert found.err.count("\n") <= 2
