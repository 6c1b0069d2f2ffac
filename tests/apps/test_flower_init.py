"""`fccl flower init`: who gets what, who can read it, and that nothing is lost or overwritten."""

from __future__ import annotations

import json
import re
import shlex
import stat
from pathlib import Path

import pytest
from cryptography import x509

from fccl.apps.arguments import parse
from fccl.apps.main import main
from fccl.keys import client_keys, read_public, server_keys
from fccl.paths import FlowerPaths
from fccl.storage import files
from fccl.transports.flower.node_keys import read_node_keys

MAKE = ("flower", "init", "--sites", "2", "--hosts", "fl.example.org,192.0.2.7")
PATHS = FlowerPaths(Path("flower"))
SITE = ("README.txt", "ca.pem", "keys/client_{}.key", "keys/public.json", "node.key")
TREE = {
    *("authority/ca.key", "authority/ca.pem", "authority/deployment.json"),
    *("superlink/ca.pem", "superlink/nginx.conf", "superlink/server.key", "superlink/server.pem"),
    *("server/README.txt", "server/ca.pem", "server/keys/public.json", "server/keys/server.key"),
    *("server/nodes/client_0.pub", "server/nodes/client_1.pub"),
    *(f"site_{number}/{name.format(number)}" for number in (0, 1) for name in SITE),
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def tree(root=PATHS.root):
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def contents(root=PATHS.root):
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"}


def names_of(certificate):
    found = x509.load_pem_x509_certificate(certificate.read_bytes()).extensions
    names = found.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


def test_each_party_s_folder_holds_exactly_what_that_party_gets(capsys):
    assert main([*MAKE]) == 0
    assert tree() == TREE
    private = [path for path in PATHS.root.rglob("*") if path.suffix == ".key"]
    texts = [path.read_bytes() for path in private]
    assert len(set(texts)) == len(texts) == 7, "no private key is in two places"
    said = capsys.readouterr().out
    until = x509.load_pem_x509_certificate(PATHS.superlink.certificate.read_bytes()).not_valid_after_utc
    assert f"The SuperLink's certificate expires on {until:%Y-%m-%d}" in said
    assert "Keys do not expire." in said


def test_private_keys_and_folders_are_their_owner_s_alone():
    main([*MAKE])
    for path in PATHS.root.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_dir():
            assert mode == 0o700, path
        elif path.suffix == ".key":
            assert mode == 0o600, path


def test_the_keys_are_those_that_each_command_reads():
    main([*MAKE])
    public = read_public(PATHS.server.keys)
    assert server_keys(PATHS.server.keys).public == public
    for number in (0, 1):
        assert client_keys(PATHS.site(number).keys, number).public == public
    assert sorted(read_node_keys(PATHS.server.nodes)) == [0, 1]


def test_the_certificate_is_for_the_hosts_that_were_named_and_for_the_server_s_own():
    main([*MAKE, "--superlink", "superlink:8000"])
    assert names_of(PATHS.superlink.certificate) == [
        "fl.example.org",
        "192.0.2.7",
        "localhost",
        "127.0.0.1",
        "superlink",
    ]
    conf = PATHS.superlink.proxy.read_text()
    assert "server superlink:8000;" in conf
    assert "listen 8443 ssl;" in conf


def test_hosts_may_have_spaces_between_and_an_ipv6_address_comes_first_in_brackets():
    main(["flower", "init", "--hosts", "2001:db8::7, fl.example.org", "--superlink", "[::1]:8000"])
    names = ["2001:db8::7", "fl.example.org", "localhost", "127.0.0.1", "::1"]
    assert names_of(PATHS.superlink.certificate) == names
    assert "--superlink '[2001:db8::7]:8443' " in (PATHS.site(0).root / "README.txt").read_text()
    assert "server [::1]:8000;" in PATHS.superlink.proxy.read_text()


def test_a_second_time_nothing_is_overwritten(capsys):
    main([*MAKE])
    before = contents()
    assert main([*MAKE]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: flower/ holds authority already, and nothing is overwritten\n  hint: --add 1 adds")
    assert contents() == before


def test_a_site_that_is_added_changes_nobody_else_s_folder(capsys):
    main([*MAKE])
    before = contents()
    assert main(["flower", "init", "--add", "1"]) == 0
    now = contents()
    new = {f"site_2/{name.format(2)}" for name in SITE} | {"server/nodes/client_2.pub"}
    assert {path.relative_to(PATHS.root).as_posix() for path in now if path not in before} == new
    assert [path for path in before if now[path] != before[path]] == [PATHS.server.keys.public]
    assert client_keys(PATHS.site(2).keys, 2).public == read_public(PATHS.server.keys)
    assert sorted(read_node_keys(PATHS.server.nodes)) == [0, 1, 2]
    assert "Register the new keys: fccl flower register --bundle flower/server" in capsys.readouterr().out


def test_a_renewed_certificate_is_of_the_same_authority_and_changes_nothing_else(capsys):
    main([*MAKE])
    before = contents()
    assert main(["flower", "init", "--renew"]) == 0
    now = contents()
    assert now.keys() == before.keys()
    assert {path for path in before if now[path] != before[path]} == {
        PATHS.superlink.certificate,
        PATHS.superlink.key,
    }
    authority = x509.load_pem_x509_certificate(PATHS.authority.certificate.read_bytes())
    x509.load_pem_x509_certificate(PATHS.superlink.certificate.read_bytes()).verify_directly_issued_by(authority)
    assert "The sites need nothing new." in capsys.readouterr().out


class Killed(BaseException):
    """A process that ends in the middle."""


def test_cut_off_while_it_adds_a_site_it_is_finished_the_next_time(monkeypatch):
    main([*MAKE])
    writes = 0
    for last in range(1, 40):
        count = 0
        write = files.write_bytes

        def counted(path, content, mode=0o666, write=write, last=last):
            nonlocal count
            count += 1
            if count == last:
                raise Killed
            write(path, content, mode)

        with monkeypatch.context() as patched:
            for module in ("fccl.apps.flower_init", "fccl.keys"):
                patched.setattr(f"{module}.write_bytes", counted)
            try:
                main(["flower", "init", "--add", "1"])
            except Killed:
                continue
        writes = count
        break
    assert writes, "it came to an end"
    numbers = sorted(read_public(PATHS.server.keys).clients)
    assert main(["flower", "init", "--add", "1"]) == 0
    for number in sorted(read_public(PATHS.server.keys).clients):
        assert client_keys(PATHS.site(number).keys, number)
    assert numbers == list(range(len(numbers))), "no number is lost"
    assert not [path for path in PATHS.root.rglob("*") if path.name.endswith(".tmp")]
    assert not list(PATHS.server.keys.root.glob("client_*.key"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["init"], "fccl flower init needs --hosts"),
        (["init", "--hosts", "a b"], "'a b' is neither a host's name nor an address"),
        (["init", "--hosts", "fl.example.org:8443"], "'fl.example.org:8443' is neither a host's name nor an address"),
        (["init", "--hosts", ""], "fccl flower init needs --hosts"),
        (["init", "--hosts", "a,"], "'' is neither a host's name nor an address"),
        (["init", "--hosts", "0.0.0.0"], "'0.0.0.0' is not the address of one host"),
        (["init", "--hosts", "fe80::1%eth0"], "'fe80::1%eth0' has a zone"),
        (["init", "--hosts", "a,300.1.2.3"], "'300.1.2.3' is neither a host's name nor an address"),
        (["init", "--hosts", "[::1]:8443"], "'[::1]:8443' is neither a host's name nor an address"),
        (["init", "--hosts", "a", "--superlink", "8000"], "'8000' is no HOST:PORT"),
        (["init", "--hosts", "a", "--superlink", "::1:8000"], "'::1:8000' is no HOST:PORT"),
        (["init", "--hosts", "a", "--superlink", "a b:8000"], "'a b' is neither a host's name nor an address"),
        (["init", "--hosts", "a", "--superlink", "0.0.0.0:8000"], "'0.0.0.0' is not the address of one host"),
        (["init", "--hosts", "a", "--sites", "0"], "argument --sites: '0' is not a whole number from 1 to 10,000"),
        (["init", "--add", "0"], "argument --add: '0' is not a whole number from 1 to 10,000"),
        (["init", "--add", "1"], "flower/ is not a folder of `fccl flower init`"),
        (["init", "--renew"], "flower/ is not a folder of `fccl flower init`"),
        (["init", "--add", "1", "--renew"], "--add and --renew are two steps"),
        (["init", "--add", "1", "--hosts", "a"], "--hosts does not go with --add or --renew"),
        (["init", "--hosts", "a", "--resume"], "fccl flower init does not read --resume"),
        (["init", "--hosts", "a", "--fed-rounds", "3"], "fccl flower init does not read --fed-rounds"),
        (["register"], "fccl flower register needs --bundle"),
        (["register", "--bundle", "none"], "the node keys in none/nodes cannot be read"),
        (["register", "--sites", "2"], "fccl flower register does not read --sites"),
        (["run", "--hosts", "a"], "fccl flower run does not read --hosts"),
    ],
)
def test_what_does_not_fit_is_one_line_and_makes_nothing(arguments, said, capsys, tmp_path):
    assert main(["flower", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"error: {said}")
    assert list(tmp_path.iterdir()) == []


def test_num_clients_says_how_many_where_sites_does_not():
    assert main(["flower", "init", "--hosts", "a", "--num-clients", "4", "--out", "x"]) == 0
    assert sorted(path.name for path in Path("x").glob("site_*")) == [f"site_{number}" for number in range(4)]


def blocks(path):
    """The commands of a README: its indented paragraphs, in order."""
    found = re.findall(r"(?:^    .*\n)+", path.read_text(), re.MULTILINE)
    return [re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in found]


def test_every_command_of_fccl_in_a_readme_is_understood():
    main([*MAKE])
    texts = [block for name in ("server", "site_1") for block in blocks(PATHS.root / name / "README.txt")]
    calls = [shlex.split(text.replace("\\\n", "")) for text in texts if text.startswith("fccl ")]
    assert [call[1] for call in calls] == ["flower", "flower", "client"]
    for call in calls:
        parse(call[1], call[2:])
    assert f"--bundle {PATHS.server.root.absolute()}" in texts[3]


def test_a_site_s_readme_names_its_number_the_address_and_no_other_site():
    main([*MAKE, "--port", "9443"])
    text = (PATHS.site(1).root / "README.txt").read_text()
    assert "--superlink fl.example.org:9443" in text
    assert "client-id=1 " in text
    assert "client_0" not in text
    told = json.loads(PATHS.described.read_text())
    assert told == {"hosts": ["fl.example.org", "192.0.2.7"], "port": 9443, "superlink": "127.0.0.1:8000"}


def test_the_proxy_lets_one_prefix_through_and_refuses_the_rest():
    """That nginx does so is for `make test-docker`."""
    main([*MAKE])
    conf = PATHS.superlink.proxy.read_text()
    assert re.findall(r"location (.*) \{", conf) == ["/", r"~ ^/v1/fleet/[a-z-]+$"]
    assert "proxy_pass https://superlink$uri;" in conf
