"""Secrets and the draws of them: a function of secret and names, normal where they say so, and nobody else's."""

import hashlib
import hmac
import json
import os
import stat

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fccl.errors import StorageError
from fccl.privacy.secrets import LENGTH, Draws, Secret, secret_of
from tests.examples import few

NAMES = st.lists(st.one_of(st.text(max_size=5), st.integers(0, 99)), max_size=3)
SECRET = Secret(bytes(range(32)))


def hkdf(secret, info):
    """RFC 5869 by hand, one block of SHA-256."""
    extracted = hmac.digest(b"fccl draws 1", secret, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


@given(st.binary(min_size=LENGTH, max_size=LENGTH), NAMES, NAMES)
@settings(max_examples=few(50))
def test_draws_are_the_same_for_the_same_names_and_others_for_others(content, one, other):
    first, again = (Secret(content).draws(*one).uniforms(4) for _ in range(2))
    assert (first == again).all()
    assert (first == Secret(content).draws(*other).uniforms(4)).all() == (json.dumps(one) == json.dumps(other))
    assert not (first == Secret(hashlib.sha256(content).digest()).draws(*one).uniforms(4)).any()


def test_the_key_of_a_purpose_is_that_of_rfc_5869_and_the_numbers_are_chacha20s():
    names = ("run", 3, "noise")
    key = hkdf(SECRET.content, json.dumps(names).encode())
    stream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor().update(bytes(40))
    words = np.array([int.from_bytes(stream[place : place + 8], "little") for place in range(0, 40, 8)], dtype=object)
    expected = np.array([(int(word >> 11) + 0.5) / 2**53 for word in words])
    assert (SECRET.draws(*names).uniforms(5) == expected).all()


def test_numbers_are_uniform_and_normal():
    draws = SECRET.draws("distribution")
    assert stats.kstest(draws.uniforms(20_000), "uniform").pvalue > 1e-3
    normals = draws.normals(20_001)
    assert len(normals) == 20_001
    assert stats.kstest(normals, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(normals[:10_000], normals[10_001:])[0, 1]) < 0.05


def test_a_stream_goes_on():
    whole = Draws(bytes(32)).uniforms(6)
    parts = Draws(bytes(32))
    assert (np.concatenate([parts.uniforms(2), parts.uniforms(4)]) == whole).all()


def test_a_secret_is_made_once_of_the_operating_system_and_is_its_owners_alone(tmp_path, monkeypatch):
    asked = []
    real = os.urandom
    monkeypatch.setattr(os, "urandom", lambda count: asked.append(count) or real(count))
    made, is_new = secret_of(tmp_path / "client_0")
    assert is_new
    assert LENGTH in asked
    assert secret_of(tmp_path / "client_0") == (made, False)
    path = tmp_path / "client_0" / "secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert secret_of(tmp_path / "client_1")[0] != made


def test_a_secret_says_nothing_of_itself():
    assert "content" not in repr(SECRET)
    assert SECRET.name not in SECRET.content.hex()
    assert SECRET.name != Secret(bytes(32)).name


def short(path):
    path.write_bytes(b"x")


def link(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def shown(path):
    path.chmod(0o644)


@pytest.mark.parametrize(("spoil", "said"), [(short, "no secret"), (link, "no secret"), (shown, "read by others")])
def test_what_is_no_secret_any_more_is_an_error_with_a_way_out(tmp_path, spoil, said):
    secret_of(tmp_path / "private")
    spoil(tmp_path / "private" / "secret")
    with pytest.raises(StorageError, match=said) as caught:
        secret_of(tmp_path / "private")
    assert "counts as spent a second time" in caught.value.hint
