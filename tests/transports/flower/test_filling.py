"""Any sequence of messages, kills and lost files ends with the server's files at the site, to the byte."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import few
from tests.transports.flower.line import line

TROUBLE = ("nothing", "empty", "corrupt", "cut", "swap", "resumed", "again")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["round", "aligned", "request", "done"]),
        st.integers(0, 2),
        st.sampled_from(["whole", "coded", "coded", "drawn", "spoilt", "same"]),
        st.sampled_from(TROUBLE),
        st.none() | st.integers(0, 20),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=few(200))
@given(steps=STEPS)
def test_whatever_happens_the_site_ends_with_the_server_s_files(steps):
    with line() as way:
        for kind, which, how, trouble, kill_at in steps:
            errand = getattr(way, kind)(which, how)
            getattr(way, trouble)()
            way.carry(errand, kill_at)


SCRIPT = (("round", 0, "drawn"), ("round", 1, "coded"), ("aligned", 0, "coded"), ("request", 0, "same"))


@pytest.mark.parametrize("number", range(len(SCRIPT)))
def test_a_site_killed_at_any_write_of_any_message_ends_with_the_same_files(number):
    """The last message before is whole, and what comes after is in few bytes."""
    for at in range(200):
        with line() as way:
            for kind, which, how in SCRIPT[:number]:
                way.carry(getattr(way, kind)(which, how))
            kind, which, how = SCRIPT[number]
            way.carry(getattr(way, kind)(which, how), at)
            if not way.messages["killed"]:
                assert at > 5
                return
            way.carry(way.round(2, "coded"))
    raise AssertionError("it is killed for ever")
