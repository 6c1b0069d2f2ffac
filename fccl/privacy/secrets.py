"""Secrets: 32 bytes of the operating system that draws come from, so that only their owner can make a draw again.

A draw is a function of (secret, run, round, purpose): after a kill the same answer has the same bytes. Nothing that
travels, such as `SEED`, is a part of the secret. HKDF (RFC 5869) makes a key of secret and names, ChaCha20 a stream of
the key.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from fccl.errors import StorageError, UpdateRejected
from fccl.storage.files import write_bytes
from fccl.storage.private import private_folder
from fccl.storage.reading import is_there, read_bounded

LENGTH = 32  # bytes
NAME = "secret"  # of the file
_SALT = b"fccl draws 1"
_OTHERS = 0o077
_NONCE = bytes(16)  # each key makes one stream
_STEP = 2.0**-53


class Draws:
    """A stream of random numbers that its key alone determines."""

    def __init__(self, key: bytes) -> None:
        self._stream = Cipher(algorithms.ChaCha20(key, _NONCE), mode=None).encryptor()

    def content(self, count: int) -> bytes:
        """The next bytes of the stream."""
        return self._stream.update(bytes(count))

    def uniforms(self, count: int) -> NDArray[np.float64]:
        """Numbers of (0, 1), on a grid of 2^-53: (count,)."""
        words = np.frombuffer(self._stream.update(bytes(8 * count)), dtype="<u8")  # (count,)
        return ((words >> np.uint64(11)).astype(np.float64) + 0.5) * _STEP

    def normals(self, count: int) -> NDArray[np.float64]:
        """Standard normal numbers by Box and Muller (1958): (count,)."""
        pairs = (count + 1) // 2
        radius = np.sqrt(-2.0 * np.log(self.uniforms(pairs)))  # (pairs,)
        angle = 2.0 * np.pi * self.uniforms(pairs)  # (pairs,)
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]


@dataclass(frozen=True)
class Secret:
    """A secret in memory. Its `repr` says its name alone.

    >>> one, other = Secret(bytes(32)), Secret(b"x" * 32)
    >>> one.draws("run", 0, "noise").uniforms(1) == one.draws("run", 0, "noise").uniforms(1)
    array([ True])
    >>> one.draws("run", 0, "noise").uniforms(1) == other.draws("run", 0, "noise").uniforms(1)
    array([False])
    """

    content: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.content) != LENGTH:
            raise ValueError(f"a secret has {LENGTH} bytes, not {len(self.content)}")

    @property
    def name(self) -> str:
        """Sixteen digits by which a ledger tells two secrets apart; they say nothing of the secret."""
        return hashlib.sha256(b"fccl name of a secret" + self.content).hexdigest()[:16]

    def draws(self, *names: str | int) -> Draws:
        """The stream of one purpose, such as `draws(run_id, round, "noise")`."""
        info = json.dumps(names).encode()
        return Draws(HKDF(SHA256(), LENGTH, salt=_SALT, info=info).derive(self.content))


def secret_of(folder: Path) -> tuple[Secret, bool]:
    """The secret in a private folder (mode 0700), and whether it was made just now, of the operating system's
    randomness.

    Raises `StorageError` when the folder cannot be private, or what lies there is no secret or was open to others.
    """
    keeps_modes = not private_folder(folder)
    path = folder / NAME
    is_new = not is_there(path)
    if is_new:
        write_bytes(path, os.urandom(LENGTH), 0o600)
    try:
        found = Secret(bytes(read_bounded(path, LENGTH, LENGTH)))
    except UpdateRejected as error:
        raise _unfit(f"{path} is no secret: {error}") from error
    if keeps_modes and stat.S_IMODE(path.lstat().st_mode) & _OTHERS:
        raise _unfit(f"{path} can be read by others")
    return found, is_new


def _unfit(what: str) -> StorageError:
    return StorageError(what, hint="delete it: a new one is made, and the open round counts as spent a second time")
