"""Fixed-point words: their sum is exact in any order, no sum overflows, and they travel as finite numbers."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.errors import SettingsError, UpdateRejected
from fccl.privacy.fixed_point import FEWEST_BITS, LARGEST_SUM, RING, FixedPoint, as_numbers, as_words
from tests.examples import few

BOUNDS = st.floats(1e-3, 1e3)
CHANGES = st.lists(st.lists(st.floats(-2e4, 2e4), min_size=3, max_size=3), min_size=1, max_size=6)


@given(st.floats(1e-3, 1e5), st.integers(1, 5000), st.integers(2, 90))
@settings(max_examples=few(200))
def test_a_form_has_as_many_bits_as_its_sum_has_room_for_and_no_more(bound, most, clients):
    room = clients * round(most * bound * 2**FEWEST_BITS) <= LARGEST_SUM >= clients * most
    if not room:
        with pytest.raises(SettingsError, match=f"{clients:,} clients of at most {most:,} examples"):
            FixedPoint.of(bound=bound, most=most, clients=clients)
        return
    form = FixedPoint.of(bound=bound, most=most, clients=clients)
    assert clients * form.largest <= LARGEST_SUM
    more = form.model_copy(update={"bits": form.bits + 1})
    assert not more.has_room(clients) or form.bits == 60


@given(CHANGES, st.lists(st.integers(1, 3000), min_size=6, max_size=6), BOUNDS, st.randoms(use_true_random=False))
@settings(max_examples=few(150))
def test_the_sum_of_the_integers_is_exact_in_any_order(changes, samples, bound, draw):
    """Against whole numbers of Python: round(n Δ 2^bits), Δ within the bound and n capped."""
    form = FixedPoint.of(bound=bound, most=500, clients=len(changes))
    counts = [min(number, 500) for number in samples[: len(changes)]]
    expected = [
        sum(
            round(Fraction(float(np.clip(change[place], -bound, bound)) * count) * 2**form.bits)
            for change, count in zip(changes, counts, strict=True)
        )
        for place in range(3)
    ]
    vectors = [form.words(np.array(change), count) for change, count in zip(changes, samples, strict=False)]
    draw.shuffle(vectors)
    total = np.zeros(4, dtype=np.uint32)
    for vector in vectors:
        total = (total + vector) % np.uint32(RING)
    mean, counted = form.mean(total)
    assert counted == sum(counts)
    assert [Fraction(float(number)) for number in mean] == [
        Fraction(float(np.ldexp(np.float64(whole), -form.bits) / counted)) for whole in expected
    ]


@given(BOUNDS, st.integers(1, 100), st.integers(2, 90), st.booleans())
@settings(max_examples=few(100))
def test_the_largest_changes_of_all_clients_do_not_overflow(bound, most, clients, below):
    form = FixedPoint.of(bound=bound, most=most, clients=clients)
    sign = -1.0 if below else 1.0
    vector = form.words(np.array([sign * 1e30, sign * bound]), 10**9)
    mean, counted = form.mean(vector * np.uint32(clients))
    assert counted == clients * most
    assert mean == pytest.approx([sign * bound] * 2, abs=2.0**-form.bits / most)


@given(st.lists(st.integers(0, RING - 1), min_size=1, max_size=50))
@settings(max_examples=few(100))
def test_words_travel_as_finite_numbers_below_2_and_back(words):
    given_words = np.array(words, dtype=np.uint32)
    numbers = as_numbers(given_words)
    assert np.isfinite(numbers).all()
    assert (abs(numbers) < 2).all()
    assert (as_words(numbers) == given_words).all()


def test_every_bit_of_a_word_is_kept_also_where_the_number_is_zero_or_tiny():
    words = np.array([0, 1, 2**30, 2**30 + 1, RING - 1, 2**23 - 1], dtype=np.uint32)
    assert (as_words(as_numbers(words)) == words).all()
    assert np.signbit(as_numbers(words))[2]


@pytest.mark.parametrize("number", [2.0, -2.0, 1e6, np.inf, np.nan])
def test_a_number_that_stands_for_no_word_is_refused(number):
    with pytest.raises(UpdateRejected, match="not below 2"):
        as_words(np.array([0.5, number], dtype=np.float32))


def test_a_sum_without_examples_is_refused():
    form = FixedPoint.of(bound=1.0, most=10, clients=3)
    with pytest.raises(UpdateRejected, match="nothing"):
        form.mean(np.array([5, 7, 0], dtype=np.uint32))


def test_too_many_clients_are_refused_with_the_numbers():
    with pytest.raises(SettingsError) as caught:
        FixedPoint.of(bound=100.0, most=1_000_000, clients=90)
    assert str(caught.value) == (
        "90 clients of at most 1,000,000 examples, with changes of at most 100 in steps of 2^-6, add up to "
        "576,000,000,000: more than the 2^30 - 1 = 1,073,741,823 of a masked sum"
    )
    assert "SECURE_MAX_SAMPLES" in caught.value.hint
