import json

from fccl.compare.methods import METHODS
from fccl.compare.scenarios import SCENARIOS
from fccl.compare.store import finished, keep, to_do
from fccl.compare.values import CellResult


def result(work):
    return CellResult(work=work, seconds=1, training_seconds=1, weighing_seconds=0, losses=(1.0,), units=(2.0,))


def cells(shop, *names):
    return [shop.planner.cell(SCENARIOS[scenario], METHODS[method], 42) for scenario, method in names]


def test_what_is_kept_is_found_and_not_done_again(workshop):
    shop = workshop()
    done, left = cells(shop, ("shuffled", "fedavg"), ("shuffled", "verified"))
    keep(shop.paths, result(done.work))
    assert finished(shop.paths, done) == result(done.work)
    assert to_do(shop.paths, [done, left]) == [left]


def test_cells_with_equal_work_are_done_once(workshop):
    shop = workshop()
    first, twin = cells(shop, ("shuffled", "fedavg"), ("loss-forgers", "fedavg"))
    assert to_do(shop.paths, [first, twin]) == [first]
    keep(shop.paths, result(first.work))
    assert to_do(shop.paths, [first, twin]) == []


def test_a_file_of_other_work_under_this_name_is_not_believed(workshop):
    shop = workshop()
    (one,) = cells(shop, ("shuffled", "fedavg"))
    keep(shop.paths, result(one.work))
    path = shop.paths.cell(one.work.key)
    row = json.loads(path.read_text())
    row["work"]["train"]["weight_decay"] = 0.5
    path.write_text(json.dumps(row))
    assert finished(shop.paths, one) is None
    for damaged in (
        b"{",
        b"\xff\xfe",
        json.dumps(json.loads(result(one.work).model_dump_json()) | {"losses": [1.0, 2.0]}).encode(),
    ):
        path.write_bytes(damaged)
        assert finished(shop.paths, one) is None
