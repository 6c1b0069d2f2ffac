import pytest

from tests.view.logs import BEGAN, ROUND_S, Logs, a_manifest, line
from tests.view.looks import at, end_of


def test_the_time_left_by_therounds_of_the_phase(logs):
    logs.begin()
    logs.round(0)
    assert at(logs, end_of(1) + 30).seconds_left == pytest.approx(3 * ROUND_S - 30)
    assert at(logs, end_of(1) + 10 * ROUND_S - 800).seconds_left == pytest.approx(
        2 * ROUND_S
    )  # overdue, and no step is known
    logs.beat(0, "training", 1, end_of(1) + 300, step=3, steps=4)
    logs.beat(1, "done", 1, end_of(1) + 300)
    assert at(logs, end_of(1) + 300).seconds_left == pytest.approx(300 * (1.25 / 1.75) + 2 * ROUND_S)


def test_the_time_left_scales_the_other_phase_by_its_steps(logs):
    logs.begin(batch_size=8, va_local_epochs=3)
    logs.paths.manifest.write_bytes(
        line(a_manifest(sft=((8, 0), (8, 9)), va=((2, 2), (2, 2))))
    )  # 1 + 3 steps; 3 times 1 + 1
    logs.round(0)
    assert at(logs, end_of(1)).seconds_left == pytest.approx(ROUND_S + 2 * ROUND_S * 6 / 4)
    logs.round(1)
    logs.round(2)
    assert at(logs, end_of(3)).seconds_left == pytest.approx(ROUND_S)  # measured


def test_the_time_left_of_the_first_round(logs):
    logs.begin()
    logs.beat(0, "training", 0, BEGAN + 10, step=1, steps=10)
    assert at(logs, BEGAN + 10).seconds_left is None  # a thirtieth tells nothing
    logs.beat(0, "training", 0, BEGAN + 10, step=9, steps=10)
    assert at(logs, BEGAN + 30).seconds_left == pytest.approx(100 * 4 - 30)


def test_rounds_are_judged_by_the_last_ones(logs):
    logs = Logs(logs.root, fed_rounds=40).begin()
    for number in range(30):
        record = logs.record(number).model_copy(update={"seconds": 1000.0 if number < 20 else 10.0})
        logs.append(logs.paths.progress, record)
    logs.commit(30)
    assert at(logs, end_of(30)).seconds_left == pytest.approx(50 * 10)


def test_a_time_that_no_number_holds_is_not_known(logs):
    logs.begin()
    logs.append(logs.paths.progress, logs.record(0).model_copy(update={"seconds": 1e308}))
    logs.commit(1)
    assert at(logs, end_of(1)).seconds_left is None


def test_the_open_round_counts_by_its_clients_steps(logs):
    logs.begin()
    logs.round(0)
    logs.beat(0, "done", 1, end_of(1))
    logs.beat(1, "training", 1, end_of(1), step=1, steps=4)
    logs.beat(2, "done", 0, end_of(1))  # of the round before
    assert at(logs, end_of(1)).progress == pytest.approx((1 + 1.25 / 3) / 4)
    logs.beat(1, "training", 1, end_of(1), step=9, steps=4)
    logs.beat(2, "training", 1, end_of(1))  # reads its shard
    assert at(logs, end_of(1)).progress == pytest.approx((1 + 2 / 3) / 4)
