"""Keys: Ed25519 keys of the server and the clients (RFC 8032), and what a signature is over."""

from __future__ import annotations

import base64
import binascii
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from pydantic import Field, ValidationError, model_validator

from fccl.errors import SettingsError
from fccl.paths import KeyPaths
from fccl.specs import Grown
from fccl.storage.files import storage_errors, write_bytes, write_text
from fccl.storage.locks import exclusive
from fccl.storage.reading import json_value
from fccl.storage.temporary import sweep


class PublicKeys(Grown):
    """`public.json`: everybody's public key, in base64, and those that are revoked.

    It is no secret, but whoever can change it decides whom to believe.
    """

    LATER = frozenset({"revoked"})

    server: str
    clients: dict[int, str]
    revoked: dict[int, str] = Field(default={})

    @model_validator(mode="after")
    def _revoked_is_revoked(self) -> Self:
        if both := sorted(self.clients.keys() & self.revoked.keys()):
            raise ValueError(f"the key of client {both[0]} is revoked, and its number is never given again")
        return self

    def is_of_server(self, content: bytes, signature: str) -> bool:
        """Whether the server has signed `content`."""
        return _verifies(self.server, content, signature)

    def is_of_client(self, client_id: int, content: bytes, signature: str) -> bool:
        """Whether this client has signed `content`."""
        return client_id in self.clients and _verifies(self.clients[client_id], content, signature)

    def was_of_client(self, client_id: int, content: bytes, signature: str) -> bool:
        """Whether this client has signed `content`, also with a key that is revoked by now."""
        key = (self.clients | self.revoked).get(client_id)
        return key is not None and _verifies(key, content, signature)


@dataclass(frozen=True)
class Keys:
    """One party's own private key, and the public keys of all."""

    private: Ed25519PrivateKey
    public: PublicKeys
    warning: str = ""  # one line, when others than its owner can read the private key
    follows: Callable[[], PublicKeys] | None = field(default=None, repr=False)  # the public keys while time goes on

    def current(self) -> PublicKeys:
        """The public keys as they are now. Raises `SettingsError` where their file is none of keys any more."""
        return self.follows() if self.follows else self.public

    def sign(self, content: bytes) -> str:
        """The signature of `content`, in base64. The same key and content give the same signature."""
        return base64.b64encode(self.private.sign(content)).decode()


@dataclass
class CurrentKeys:
    """`public.json` as it is now: a server that is at work believes a key from when it is added until it is revoked."""

    paths: KeyPaths
    _seen: tuple[tuple[int, int, int], PublicKeys] | None = None

    def __call__(self) -> PublicKeys:
        """Read again where the file is another one. Raises `SettingsError` when it is none of keys."""
        with _key_errors(self.paths.public):
            found = self.paths.public.stat()  # of a link, as secrets are handed out, the file that it leads to
        identity = (found.st_ino, found.st_mtime_ns, found.st_size)
        if self._seen is None or self._seen[0] != identity:
            self._seen = identity, read_public(self.paths)
        return self._seen[1]


def create_keys(paths: KeyPaths, num_clients: int) -> PublicKeys:
    """Write new keys; private ones can be read by their owner only.

    Raises `SettingsError` when there are keys already.
    """
    if any(path.exists() for path in (paths.public, paths.server, *map(paths.client, range(num_clients)))):
        raise SettingsError(
            f"{paths.root} holds keys already", hint="name another folder with --keys-dir, or move these away"
        )
    sweep(paths.root)
    with storage_errors(paths.root):
        paths.root.mkdir(parents=True, exist_ok=True)
    server, clients = Ed25519PrivateKey.generate(), [Ed25519PrivateKey.generate() for _ in range(num_clients)]
    for client_id, key in enumerate(clients):
        _write_private(paths.client(client_id), key)
    _write_private(paths.server, server)
    public = PublicKeys(
        server=_encoded(server), clients={client_id: _encoded(key) for client_id, key in enumerate(clients)}
    )
    _write_public(paths, public)
    return public


def add_keys(paths: KeyPaths, count: int) -> tuple[int, ...]:
    """Write keys for so many clients more. Returns their numbers, which no client has had before.

    `public.json` is written last: a key counts once it is there. Raises `SettingsError` when there are no keys yet.
    """
    read_public(paths)  # there are some
    with exclusive(paths.lock, "another `fccl keys`", needed=False):
        public = read_public(paths)
        first = 1 + max([-1, *public.clients, *public.revoked])
        while any(paths.client(number).exists() for number in range(first, first + count)):
            first += 1  # a key of a command that was killed
        keys = {number: Ed25519PrivateKey.generate() for number in range(first, first + count)}
        for number, key in keys.items():
            _write_private(paths.client(number), key)
        added = {number: _encoded(key) for number, key in keys.items()}
        _write_public(paths, public.model_copy(update={"clients": public.clients | added}))
    return tuple(keys)


def revoke_keys(paths: KeyPaths, client_ids: Collection[int]) -> None:
    """Revoke these clients' keys: from now on the server believes nothing that they sign. Their numbers stay taken.

    Raises `SettingsError` for a client that has no key.
    """
    read_public(paths)  # there are some
    with exclusive(paths.lock, "another `fccl keys`", needed=False):
        public = read_public(paths)
        for number in sorted(client_ids):
            if number not in public.clients | public.revoked:
                raise SettingsError(
                    f"there is no key of client {number} in {paths.public}", hint="see the numbers there"
                )
        gone = {number: key for number, key in public.clients.items() if number in client_ids}
        left = {number: key for number, key in public.clients.items() if number not in gone}
        _write_public(paths, public.model_copy(update={"clients": left, "revoked": public.revoked | gone}))


def server_keys(paths: KeyPaths) -> Keys:
    """The server's keys: its private key and the public ones, which are followed while it is at work.

    Raises `SettingsError` when they are not there or no keys.
    """
    public = read_public(paths)
    keys = Keys(_read_private(paths.server), public, _warning(paths.server), CurrentKeys(paths))
    return _checked(keys, public.server, paths.server)


def client_keys(paths: KeyPaths, client_id: int) -> Keys:
    """One client's keys: its private key and the public ones.

    Raises `SettingsError` when they are not there or no keys.
    """
    public = read_public(paths)
    path = paths.client(client_id)
    if client_id in public.revoked:
        raise SettingsError(f"the key of client {client_id} is revoked", hint="ask for a new one: `fccl keys --add 1`")
    return _checked(Keys(_read_private(path), public, _warning(path)), public.clients.get(client_id, ""), path)


def _checked(keys: Keys, expected: str, path: Path) -> Keys:
    if _encoded(keys.private) != expected:
        raise SettingsError(
            f"{path} is not the key that public.json beside it names",
            hint="copy both from the folder that `fccl keys` wrote",
        )
    return keys


def _warning(path: Path) -> str:
    """The warning about a private key that others can read.

    Not refused: some file systems, and who hands out secrets, set modes of their own.
    """
    with storage_errors(path, "read"):
        mode = stat.S_IMODE(path.stat().st_mode)
    return (
        f"{path} can be read by others than its owner (mode {mode:04o}): chmod 600 where that is possible"
        if mode & 0o077
        else ""
    )


def read_public(paths: KeyPaths) -> PublicKeys:
    """Everybody's public keys. Raises `SettingsError` when they are not there or no keys."""
    with _key_errors(paths.public):
        content = paths.public.read_bytes()
        json_value(content)  # a number that is given twice would be two clients' word
        return PublicKeys.model_validate_json(content)


def _read_private(path: Path) -> Ed25519PrivateKey:
    with _key_errors(path):
        key = load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("not Ed25519")
        return key


@contextmanager
def _key_errors(path: Path) -> Iterator[None]:
    hint = "make keys with `fccl keys --num-clients N`; leave KEYS_DIR empty to run without"
    try:
        yield
    except FileNotFoundError:
        raise SettingsError(f"{path} is not there", hint=hint) from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}", hint=hint) from error
    except (ValueError, TypeError, UnsupportedAlgorithm, ValidationError) as error:
        raise SettingsError(f"{path} holds no key", hint=hint) from error


def _write_public(paths: KeyPaths, public: PublicKeys) -> None:
    write_text(paths.public, public.model_dump_json(indent=1) + "\n")


def _write_private(path: Path, key: Ed25519PrivateKey) -> None:
    """Never readable by others, not even for a moment."""
    write_bytes(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600)


def _encoded(key: Ed25519PrivateKey) -> str:
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def _verifies(key: str, content: bytes, signature: str) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(base64.b64decode(key, validate=True)).verify(
            base64.b64decode(signature, validate=True), content
        )
    except (InvalidSignature, ValueError, binascii.Error):
        return False
    return True
