"""Masks of a secure sum: streams of words that two clients share and that cancel, and one that is a client's own.

Client u adds the stream that it shares with v where u < v, and takes it off where u > v. The sum over all members is
free of them. On top comes a stream of u's own seed, so that an update which is late, and whose shared streams were made
up for, still says nothing (Bonawitz et al. 2017). Keys are of X25519 and HKDF, streams of ChaCha20.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fccl.errors import UpdateRejected
from fccl.privacy.fixed_point import RING, Words

KEY_BYTES = 32
_SALT = b"fccl masks 1"
_STREAM_NONCE, _SEAL_NONCE = bytes(16), bytes(12)  # each key makes one stream, or seals one message


def public_of(private: bytes) -> str:
    """The public key of a private one, in 64 digits."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw().hex()


def shared(private: bytes, public: str) -> bytes:
    """The secret that a private key and another party's public one share: 32 bytes.

    Raises `UpdateRejected` for a public key that shares the same with everybody.
    """
    try:
        return X25519PrivateKey.from_private_bytes(private).exchange(
            X25519PublicKey.from_public_bytes(bytes.fromhex(public))
        )
    except ValueError as error:
        raise UpdateRejected("a public key of the cohort is of small order") from error


def pair_stream(secret: bytes, tag: str, one: int, other: int, count: int) -> Words:
    """The words that two clients share, of their shared secret: (count,)."""
    return _stream(_derived(secret, "pair", tag, *sorted((one, other))), count)


def own_stream(seed: bytes, tag: str, client: int, count: int) -> Words:
    """The words of a client's own mask, of its seed: (count,)."""
    return _stream(_derived(seed, "own", tag, client), count)


def signed(words: Words, client: int, other: int) -> Words:
    """The words as `client` adds them: those of a pair cancel."""
    return words if client < other else _within(np.uint32(0) - words)


def masked(words: Words, client: int, tag: str, seed: bytes, secrets: Mapping[int, bytes]) -> Words:
    """A client's words under all its masks, (count,). `secrets` are those that it shares with the other members.

    >>> one = masked(np.array([5, 7], np.uint32), 0, "tag", b"a" * 32, {1: b"s" * 32})
    >>> other = masked(np.array([1, 2], np.uint32), 1, "tag", b"b" * 32, {0: b"s" * 32})
    >>> own = own_stream(b"a" * 32, "tag", 0, 2), own_stream(b"b" * 32, "tag", 1, 2)
    >>> (one + other - own[0] - own[1]) % RING
    array([6, 9], dtype=uint32)
    """
    total = words + own_stream(seed, tag, client, len(words))  # (count,); 2^32 is a multiple of RING
    for other, secret in secrets.items():
        total = total + signed(pair_stream(secret, tag, client, other, len(words)), client, other)
    return _within(total)


def sealed(secret: bytes, tag: str, sender: int, recipient: int, content: bytes) -> bytes:
    """Content for one recipient's eyes, by the secret that both share."""
    return _seal(secret, tag, sender, recipient).encrypt(_SEAL_NONCE, content, None)


def unsealed(secret: bytes, tag: str, sender: int, recipient: int, content: bytes) -> bytes:
    """The content again. Raises `UpdateRejected` unless the sender has sealed it for this recipient and tag."""
    try:
        return _seal(secret, tag, sender, recipient).decrypt(_SEAL_NONCE, content, None)
    except InvalidTag as error:
        raise UpdateRejected(f"the shares of client {sender} are not sealed for client {recipient}") from error


def _seal(secret: bytes, tag: str, sender: int, recipient: int) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(_derived(secret, "seal", tag, sender, recipient))


def _derived(secret: bytes, *names: str | int) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt=_SALT, info=json.dumps(names).encode()).derive(secret)


def _stream(key: bytes, count: int) -> Words:
    """Uniform words of a key: the low 31 bits of each 32 of the stream."""
    content = Cipher(algorithms.ChaCha20(key, _STREAM_NONCE), mode=None).encryptor().update(bytes(4 * count))
    return _within(np.frombuffer(content, dtype="<u4").astype(np.uint32))


def _within(words: Words) -> Words:
    return words & np.uint32(RING - 1)
