"""What was checked stays in memory up to a bound, and nothing else is ever given in its place."""

import hashlib

import torch
from hypothesis import given
from hypothesis import strategies as st

from fccl.adapters.adapter import Adapter
from fccl.adapters.recent import Checked, Recent


def checked(number):
    adapter = Adapter({"a": torch.full((4,), float(number))})
    return Checked(bytearray(adapter.to_bytes()), adapter)


def name_of(number):
    return hashlib.sha256(checked(number).content).hexdigest()


LENGTH = len(checked(0).content)


def test_what_is_held_is_found_until_it_is_cleared():
    recent, found = Recent(), checked(1)
    assert recent.hold(name_of(1), found)
    assert recent.find(name_of(1)) is found
    assert recent.find(name_of(2)) is None
    recent.clear()
    assert recent.find(name_of(1)) is None


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.integers(0, 4))
def test_it_holds_the_first_ones_that_fit_and_the_newest_one_and_says_which_need_a_file(numbers, room):
    recent, stays = Recent(most_bytes=room * LENGTH + LENGTH - 1), []
    for number in numbers:
        if recent.hold(name_of(number), checked(number)) and number not in stays:
            stays.append(number)
    found = {
        number
        for number in range(6)
        if (held := recent.find(name_of(number))) and held.content == checked(number).content
    }
    assert stays == list(dict.fromkeys(numbers))[:room]
    assert found == {*stays, numbers[-1]}
