import dataclasses
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fccl.adapters.ranks import leading
from fccl.errors import UpdateRejected
from fccl.federation.bounds import LARGEST, farthest, measured, medians, norm, too_long
from fccl.records.run import MedianNorms
from fccl.testing.lora_toy import factors
from fccl.testing.quadratic import update
from fccl.testing.toy import adapter

NOTHING = MedianNorms()
norms = st.floats(1e-6, 1e6)


def sent(*changes, controls=None):
    """Updates of which only the norms matter."""
    found = [
        dataclasses.replace(update(index, (0.0, 0.0, 0.0)), change_norm=float(change))
        for index, change in enumerate(changes)
    ]
    return [
        dataclasses.replace(each, control_norm=control)
        for each, control in zip(found, controls or [None] * len(found), strict=True)
    ]


@pytest.mark.parametrize("number", [3e38, -3e38, 1.0001e6, -2e6, 1e30])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_number_that_is_too_large_is_refused_wherever_it_stands(number, place):
    numbers = [0.5, -0.5, 0.25]
    numbers[place] = number
    absurd = adapter(*numbers)
    with pytest.raises(UpdateRejected, match=r"its update has a number of size .*, more than 1,000,000"):
        measured(update(0, (), kept=absurd), absurd, adapter())
    with pytest.raises(UpdateRejected, match=r"its control variate has a number of size"):
        measured(dataclasses.replace(update(0, (0.0, 0.0, 0.0)), control=absurd), adapter(), adapter())


@given(st.lists(st.floats(-LARGEST, LARGEST, width=32), min_size=3, max_size=3))
def test_an_update_is_measured_once_and_for_all(numbers):
    start, own = adapter(1.0, -1.0, 0.5), adapter(*numbers)
    found = measured(dataclasses.replace(update(0, numbers), control=own), own, start)
    assert found.change_norm == own.distance(start) == found.change_from(start)
    assert found.control_norm == norm(own) == pytest.approx(math.dist(numbers, (0, 0, 0)), rel=1e-6, abs=1e-9)


def test_an_update_of_lower_rank_is_measured_along_what_it_trained():
    before, own = factors(1, 4), factors(2, 2)
    assert measured(update(0, (), kept=own), own, before).change_norm == own.distance(leading(before, 2))


@given(st.lists(norms, min_size=3, max_size=9), st.floats(2, 1e4), st.floats(1.001, 1e9))
def test_a_change_longer_than_so_many_medians_is_left_out_and_no_other(changes, ratio, more):
    assume(max(changes) < ratio * sorted(changes)[0])
    too_far = ratio * more * max(changes)
    found = too_long(sent(*changes, too_far), ratio, NOTHING)
    assert list(found) == [len(changes)]
    assert found[len(changes)].startswith("its change has the norm")
    assert f"MAX_UPDATE_RATIO is {ratio:g}" in found[len(changes)]
    assert not too_long(sent(*changes, too_far), 0, NOTHING)


@given(st.lists(norms, min_size=1, max_size=5), st.integers(1, 20))
def test_clients_who_send_back_what_they_were_given_make_nobody_else_long(honest, idle):
    assume(max(honest) < 100 * min(honest))
    assert not too_long(sent(*honest, *[0.0] * idle), 100, NOTHING)
    assert medians(sent(*[0.0] * idle), MedianNorms(change=2.0)) == MedianNorms(change=2.0)


@pytest.mark.parametrize("changes", [(1e5,), (1.0, 1e5), (0.0, 1.0, 1e5), (0.0, 0.0, 1e5, 0.0), (1e5, 1e5)])
def test_few_are_measured_by_the_last_accepted_round(changes):
    assert not too_long(sent(*changes), 100, NOTHING)
    assert sorted(too_long(sent(*changes), 100, MedianNorms(change=1.0))) == [
        index for index, one in enumerate(changes) if one > 100
    ]


def test_control_variates_are_measured_beside_each_other():
    updates = sent(1, 1, 1, 1, controls=[0.1, 0.2, 0.1, 1e3])
    assert {client: reason[:19] for client, reason in too_long(updates, 100, NOTHING).items()} == {
        3: "its control variate"
    }
    assert medians(updates[:3], NOTHING) == MedianNorms(change=1.0, control=0.1)


@given(st.lists(norms, min_size=2, max_size=9))
def test_the_farthest_is_named_with_the_others(changes):
    found = farthest(sent(*changes))
    assert changes[found.client_id] == max(changes)
    assert f"client {found.client_id}: norm {max(changes):.3g}, the median of the others" in found.words
    assert farthest(sent(0.0, 0.0)) is None
    assert farthest(sent(7.0)).alone is False
