"""Shamir's shares: enough of them give the secret, fewer go with every secret there is."""

import random
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.privacy.shamir import PRIME, SECRET_BYTES, SHARE_BYTES, joined, split
from tests.examples import few

SECRETS = st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES)


def drawing(seed):
    return random.Random(seed).randbytes


@given(SECRETS, st.integers(1, 12), st.integers(0, 12), st.randoms(use_true_random=False))
@settings(max_examples=few(60))
def test_as_many_shares_as_the_threshold_give_the_secret_whoever_holds_them(secret, threshold, more, draw):
    holders = draw.sample(range(1000), threshold + more)
    shares = split(secret, threshold, holders, draw.randbytes)
    assert set(shares) == set(holders)
    assert {len(share) for share in shares.values()} == {SHARE_BYTES}
    some = draw.sample(holders, draw.randint(threshold, threshold + more))
    assert joined({holder: shares[holder] for holder in some}) == secret


@given(SECRETS, SECRETS, st.integers(2, 6))
@settings(max_examples=few(40))
def test_one_share_fewer_goes_with_any_other_secret_too(secret, other, threshold):
    """For every secret there is one polynomial through the shares that are known and that secret: all are as likely."""
    holders = range(threshold)
    shares = split(secret, threshold, holders, drawing(5))
    known = {holder: int.from_bytes(shares[holder], "big") for holder in holders[:-1]}
    target = int.from_bytes(other, "big")
    # the last holder's share, were `other` the secret: Lagrange over the points 0, 1 … threshold - 1
    points = {0: target, **{holder + 1: value for holder, value in known.items()}}
    at = threshold
    value = 0
    for x, y in points.items():
        above = below = 1
        for z in points:
            if z != x:
                above, below = above * (at - z) % PRIME, below * (x - z) % PRIME
        value = (value + y * above * pow(below, -1, PRIME)) % PRIME
    made_up = {**{holder: shares[holder] for holder in known}, threshold - 1: value.to_bytes(SHARE_BYTES, "big")}
    assert joined(made_up) == other


def test_a_false_share_gives_another_secret():
    shares = split(b"s" * 32, 2, [0, 1, 2], drawing(1))
    wrong = bytearray(shares[1])
    wrong[-1] ^= 1
    found = set()
    with suppress(ValueError):  # no 32 bytes: as good
        found.add(joined({0: shares[0], 1: bytes(wrong)}))
    assert b"s" * 32 not in found


def test_the_field_is_of_a_prime_above_all_secrets():
    assert PRIME > 2 ** (8 * SECRET_BYTES)
    assert all(pow(base, PRIME - 1, PRIME) == 1 for base in range(2, 60))
    half, twos = PRIME - 1, 0
    while half % 2 == 0:
        half, twos = half // 2, twos + 1
    for base in range(2, 60):  # Miller and Rabin: a number that is no prime fails three of four
        x = pow(base, half, PRIME)
        assert x == 1 or any(pow(x, 2**k, PRIME) == PRIME - 1 for k in range(twos))


@pytest.mark.parametrize(("secret", "threshold"), [(b"short", 2), (bytes(32), 0), (bytes(32), 4)])
def test_what_cannot_be_shared_is_an_error(secret, threshold):
    with pytest.raises(ValueError, match="shares"):
        split(secret, threshold, [0, 1, 2], drawing(0))
