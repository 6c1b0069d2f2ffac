"""Masks: they cancel in the sum, and under them a word is uniform whatever it was."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fccl.errors import UpdateRejected
from fccl.privacy.fixed_point import RING
from fccl.privacy.masks import masked, own_stream, pair_stream, public_of, sealed, shared, signed, unsealed
from tests.examples import few

RARE = 1e-6  # the smallest probability that a test calls chance


def key(*names):
    return hashlib.sha256(repr(names).encode()).digest()


def pairs(members, run=0):
    return {
        one: {other: key("pair", run, *sorted((one, other))) for other in members if other != one} for one in members
    }


@given(st.integers(2, 8), st.integers(0, 99), st.randoms(use_true_random=False))
@settings(max_examples=few(60))
def test_shared_masks_cancel_over_all_members(count, run, draw):
    members = draw.sample(range(500), count)
    words = {member: np.array([draw.randrange(RING) for _ in range(5)], dtype=np.uint32) for member in members}
    secrets = pairs(members, run)
    total = np.zeros(5, dtype=np.uint32)
    for member in members:
        total = total + masked(words[member], member, "tag", key("own", member), secrets[member])
        total = total - own_stream(key("own", member), "tag", member, 5)
    assert (total % np.uint32(RING) == sum(words.values()) % np.uint32(RING)).all()


def test_both_sides_of_a_pair_have_the_same_stream_and_add_it_with_other_signs():
    one, other = key("a"), key("b")
    assert shared(one, public_of(other)) == shared(other, public_of(one))
    stream = pair_stream(shared(one, public_of(other)), "tag", 3, 8, 6)
    assert (stream == pair_stream(shared(other, public_of(one)), "tag", 8, 3, 6)).all()
    assert ((signed(stream, 3, 8) + signed(stream, 8, 3)) % np.uint32(RING) == 0).all()


def test_the_view_of_one_update_is_uniform_whatever_the_update_is():
    """The low and the high bits of words under the masks of many rounds, by chi-squared; and so for two updates that
    could not be more unlike."""
    for word in (0, RING - 1):
        update = np.full(4096, word, dtype=np.uint32)
        seen = np.concatenate(
            [masked(update, 0, f"round {number}", key("own", number), pairs([0, 1], number)[0]) for number in range(16)]
        )
        for part in (seen >> 26, seen % 32, (seen >> 13) % 32):
            assert stats.chisquare(np.bincount(part, minlength=32)).pvalue > RARE


def test_one_mask_alone_is_uniform_so_either_hides_the_update():
    for stream in (own_stream(key("own"), "tag", 0, 65536), pair_stream(key("pair"), "tag", 0, 1, 65536)):
        assert stats.chisquare(np.bincount(stream >> 25, minlength=64)).pvalue > RARE


@given(
    st.lists(st.integers(0, RING - 1), min_size=4, max_size=4),
    st.lists(st.integers(0, RING - 1), min_size=4, max_size=4),
)
@settings(max_examples=few(40))
def test_masks_do_not_depend_on_the_update_so_every_masked_word_goes_with_every_update(one, other):
    """What is added is the same for both: adding it is one to one, so a uniform mask makes a uniform word."""
    first, second = (np.array(words, dtype=np.uint32) for words in (one, other))
    masks = [
        (masked(words, 1, "t", key("own"), pairs([0, 1, 2])[1]) - words) % np.uint32(RING) for words in (first, second)
    ]
    assert (masks[0] == masks[1]).all()


def test_masks_of_two_rounds_make_the_same_update_unlike():
    update, found = np.arange(1000, dtype=np.uint32), []
    for tag in ("round 1", "round 2"):
        found.append(masked(update, 0, tag, key("own"), pairs([0, 1])[0]))
    assert (found[0] == found[1]).sum() <= 1
    assert abs(stats.pearsonr(*found).statistic) < 0.2


def test_sealed_shares_are_for_one_recipient_and_one_tag():
    secret = shared(key("a"), public_of(key("b")))
    closed = sealed(secret, "tag", 0, 1, b"shares")
    assert unsealed(secret, "tag", 0, 1, closed) == b"shares"
    wrong = [(secret, "other", 0, 1), (secret, "tag", 2, 1), (secret, "tag", 0, 2), (key("c"), "tag", 0, 1)]
    for each in wrong:
        with pytest.raises(UpdateRejected, match=f"client {each[2]} are not sealed for client {each[3]}"):
            unsealed(*each, closed)


def test_a_public_key_that_shares_the_same_with_everybody_is_refused():
    with pytest.raises(UpdateRejected, match="small order"):
        shared(key("a"), "00" * 32)
