"""`fccl flower init`: a certificate authority, the SuperLink's certificate, the sites' node keys, everybody's signing
keys, and a folder for each party with exactly what that party gets.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fccl.apps.console import say
from fccl.apps.flower_readme import proxy_text, server_text, site_text
from fccl.apps.flower_superlink import require_address
from fccl.display.words import plural
from fccl.errors import SettingsError
from fccl.keys import add_keys, create_keys, read_public
from fccl.paths import FlowerPaths, SitePaths
from fccl.paths.flower import README
from fccl.specs import Value
from fccl.storage import temporary
from fccl.storage.files import storage_errors, sync_folder, write_bytes, write_text
from fccl.storage.locks import exclusive
from fccl.storage.reading import parse, read_bounded
from fccl.transports.flower.certificates import Issued, expires, new_authority, require_host, server_certificate
from fccl.transports.flower.node_keys import new_node_key

_MOST_BYTES = 100_000
_HERE = ("localhost", "127.0.0.1")  # names by which the SuperLink's own host calls it


class Deployment(Value):
    """The hosts that the certificate is for, the proxy's port, and where the proxy finds the SuperLink."""

    hosts: tuple[str, ...]
    port: int
    superlink: str

    @property
    def address(self) -> str:
        """HOST:PORT, as the sites name it."""
        host = self.hosts[0]
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @property
    def inside(self) -> str:
        """The SuperLink's host, as the proxy names it."""
        return self.superlink.rpartition(":")[0].strip("[]")

    @property
    def names(self) -> tuple[str, ...]:
        """All names and addresses of the certificate."""
        return tuple(dict.fromkeys((*self.hosts, *_HERE, self.inside)))


def init(options: argparse.Namespace, num_clients: int) -> int:
    """Make a deployment's folder, add a site to it, or renew its certificate. Returns the exit status."""
    if options.add and options.renew:
        raise SettingsError("--add and --renew are two steps", hint="give the one, then the other")
    paths = FlowerPaths(Path(options.out or "flower"))
    if not options.add and not options.renew:
        return _create(paths, _asked(options), options.sites or num_clients)
    for name in ("sites", "hosts", "port"):
        if getattr(options, name):
            raise SettingsError(f"--{name} does not go with --add or --renew", hint="leave it out")
    with _there(paths) as deployment:
        return _add(paths, deployment, options.add) if options.add else _renew(paths, deployment)


def _asked(options: argparse.Namespace) -> Deployment:
    if not options.hosts:
        raise SettingsError(
            "fccl flower init needs --hosts: the names and addresses by which the sites reach the server",
            hint="with commas between, the one that sites are to use first: --hosts fl.example.org,192.0.2.7",
        )
    hosts = tuple(host.strip() for host in options.hosts.split(","))
    for host in hosts:
        require_host(host)
    require_address(options.superlink)
    made = Deployment(hosts=hosts, port=options.port or 8443, superlink=options.superlink)
    require_host(made.inside, hint="--superlink is where the proxy finds the SuperLink: 127.0.0.1:8000")
    return made


def _create(paths: FlowerPaths, deployment: Deployment, sites: int) -> int:
    with storage_errors(paths.root):
        paths.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if there := sorted(name for name in os.listdir(paths.root) if not temporary.is_temporary(name)):
            raise SettingsError(
                f"{paths.root}/ holds {there[0]} already, and nothing is overwritten",
                hint="--add 1 adds a site, --renew renews the certificate; or name another folder with --out",
            )
    authority = new_authority()
    with _new(paths) as new:
        _write_private(new.authority.key, authority.key)
        write_bytes(new.authority.certificate, authority.certificate)
        write_text(new.described, deployment.model_dump_json(indent=1) + "\n")
        until = _write_tls(new, deployment).until
        write_text(new.superlink.proxy, proxy_text(deployment.superlink, deployment.port))
        _folder(new.server.keys.root)
        create_keys(new.server.keys, sites)
        write_bytes(new.server.ca, authority.certificate)
        for client_id in range(sites):
            _write_site(new.site(client_id), new, deployment, client_id, until)
            new.server.keys.client(client_id).unlink()
        text = server_text(paths.root.absolute(), deployment.superlink, deployment.port, sites, _day(until))
        write_text(new.server.root / README, text)
    say(f"Wrote {paths.root}/: each party's folder, with a README.txt of commands for its host.")
    _report(paths, range(sites))
    say(f"  {paths.server.root}/ and {paths.superlink.root}/  for the server's host")
    say(f"  {paths.authority.key}  is needed for --renew alone: keep it elsewhere")
    say(
        f"The SuperLink's certificate expires on {_day(until)} (--renew makes another), the authority's on "
        f"{_day(authority.until)}. Keys do not expire."
    )
    return 0


def _add(paths: FlowerPaths, deployment: Deployment, count: int) -> int:
    """Make folders for so many sites more. A site whose making was cut off is finished first."""
    keys = paths.server.keys
    begun = list(_begun(paths))[:count]
    numbers = [*begun, *(add_keys(keys, count - len(begun)) if count > len(begun) else ())]
    until = expires(bytes(_read(paths.superlink.certificate)))
    for client_id in numbers:
        with _new(paths) as new:
            _write_site(new.site(client_id), paths, deployment, client_id, until)
        keys.client(client_id).unlink()
    say(f"Wrote the keys of {plural(len(numbers), 'more site')} to {paths.root}/.")
    _report(paths, numbers)
    say(f"Register the new keys: fccl flower register --bundle {paths.server.root}")
    say(f"From then on it can be NUM_CLIENTS={numbers[-1] + 1}.")
    return 0


def _begun(paths: FlowerPaths) -> Iterator[int]:
    """Sites whose making was cut off: the server still has their signing keys."""
    keys = paths.server.keys
    for number in sorted(read_public(keys).clients):
        if keys.client(number).exists():
            if paths.site(number).root.exists():
                keys.client(number).unlink()
            else:
                yield number


def _renew(paths: FlowerPaths, deployment: Deployment) -> int:
    issued = _write_tls(paths, deployment)
    say(f"Wrote {paths.superlink.certificate} and its key anew; it expires on {_day(issued.until)}.")
    say("Start the SuperLink and the proxy again. The sites need nothing new.")
    return 0


def _write_tls(paths: FlowerPaths, deployment: Deployment) -> Issued:
    """Write the SuperLink's certificate and its key."""
    authority, tls = paths.authority, paths.superlink
    ca = bytes(_read(authority.certificate))
    issued = server_certificate(ca, bytes(_read(authority.key)), deployment.names)
    _folder(tls.root)
    write_bytes(tls.ca, ca)
    _write_private(tls.key, issued.key)
    write_bytes(tls.certificate, issued.certificate)
    return issued


def _write_site(
    site: SitePaths, paths: FlowerPaths, deployment: Deployment, client_id: int, until: datetime.datetime
) -> None:
    """A site's folder, and its node key's public half at the server. The server's copy of its signing key stays."""
    keys, (private, public) = paths.server.keys, new_node_key()
    _folder(site.keys.root)
    _folder(paths.server.nodes)
    write_bytes(site.ca, _read(paths.authority.certificate))
    _write_private(site.node_key, private)
    _write_private(site.keys.client(client_id), _read(keys.client(client_id)))
    write_bytes(site.keys.public, _read(keys.public))
    write_text(site.root / README, site_text(client_id, deployment.address, _day(until)))
    write_bytes(paths.server.node(client_id), public)


@contextmanager
def _there(paths: FlowerPaths) -> Iterator[Deployment]:
    """The deployment of a folder, which no other command changes meanwhile. Raises `SettingsError` without one."""
    if not paths.server.root.is_dir() or not paths.described.is_file():
        raise SettingsError(
            f"{paths.root}/ is not a folder of `fccl flower init`", hint="--out names it; without --add it is made"
        )
    with exclusive(paths.authority.root / "init.lock", "another `fccl flower init`", needed=False):
        yield parse(read_bounded(paths.described, _MOST_BYTES), Deployment, paths.described.name)


@contextmanager
def _new(paths: FlowerPaths) -> Iterator[FlowerPaths]:
    """A folder within the deployment's, to be filled; then all that is in it takes its place, `server` last."""
    temporary.sweep(paths.root)
    with storage_errors(paths.root):
        descriptor, name = temporary.make_folder(paths.root / "new")
    new = Path(name)
    try:
        with storage_errors(new):
            new.chmod(0o700)
        yield FlowerPaths(new)
        for part in sorted(new.iterdir(), key=lambda path: path.name == "server"):
            _move(part, paths.root / part.name)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        os.close(descriptor)


def _move(old: Path, new: Path) -> None:
    with storage_errors(new):
        if new.exists():
            raise SettingsError(f"{new} is there already, and nothing is overwritten", hint="move it away")
        os.replace(old, new)
        sync_folder(new.parent)


def _folder(folder: Path) -> None:
    """Make a folder that its owner alone can read, and those above it that are not there."""
    with storage_errors(folder):
        for each in (*reversed(folder.parents), folder):
            if not each.is_dir():
                each.mkdir(mode=0o700)


def _write_private(path: Path, content: bytes | bytearray) -> None:
    """Never readable by others, not even for a moment."""
    _folder(path.parent)
    write_bytes(path, content, mode=0o600)


def _read(path: Path) -> bytearray:
    return read_bounded(path, _MOST_BYTES)


def _report(paths: FlowerPaths, sites: Sequence[int]) -> None:
    for client_id in sites:
        say(f"  {paths.site(client_id).root}/  for the site of client {client_id}: hand it over, and delete it here")


def _day(moment: datetime.datetime) -> str:
    return f"{moment:%Y-%m-%d}"
