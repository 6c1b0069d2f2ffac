import json

from fccl.compare.methods import METHODS
from fccl.compare.scenarios import SCENARIOS
from fccl.compare.store import adopt, finished, keep, to_do
from fccl.compare.values import TrialResult
from tests.compare.test_verdicts import SPEC


def result(spec):
    return TrialResult(spec=spec, seconds=1, training_seconds=1, weighing_seconds=0, losses=(1.0,), units=(2.0,))


def trials(shop, *names):
    return [shop.planner.trial(SCENARIOS[scenario], METHODS[method], 42) for scenario, method in names]


def test_what_is_kept_is_found_and_not_done_again(workshop):
    shop = workshop()
    done, left = trials(shop, ("shuffled", "fedavg"), ("shuffled", "verified"))
    keep(shop.paths, result(done.spec))
    assert finished(shop.paths, done) == result(done.spec)
    assert to_do(shop.paths, [done, left]) == [left]


def test_trials_with_an_equal_spec_are_done_once(workshop):
    shop = workshop()
    first, twin = trials(shop, ("shuffled", "fedavg"), ("loss-forgers", "fedavg"))
    assert to_do(shop.paths, [first, twin]) == [first]
    keep(shop.paths, result(first.spec))
    assert to_do(shop.paths, [first, twin]) == []


def test_a_file_of_another_spec_under_this_name_is_not_believed(workshop):
    shop = workshop()
    (one,) = trials(shop, ("shuffled", "fedavg"))
    keep(shop.paths, result(one.spec))
    path = shop.paths.trial(one.spec.key)
    row = json.loads(path.read_text())
    row["spec"]["train"]["weight_decay"] = 0.5
    path.write_text(json.dumps(row))
    assert finished(shop.paths, one) is None
    for damaged in (
        b"{",
        b"\xff\xfe",
        json.dumps(json.loads(result(one.spec).model_dump_json()) | {"losses": [1.0, 2.0]}).encode(),
    ):
        path.write_bytes(damaged)
        assert finished(shop.paths, one) is None


def test_trials_of_version_0_1_are_read_under_their_new_names(workshop):
    shop = workshop()
    (one,) = trials(shop, ("shuffled", "verified"))
    row = json.loads(result(one.spec).model_dump_json())
    row["work"] = row.pop("spec")
    row["work"]["rule"] = row["work"].pop("settings")
    earlier = shop.paths.root / "cells"
    earlier.mkdir(parents=True)
    (earlier / f"{one.spec.key}.json").write_text(json.dumps(row))
    adopt(shop.paths)
    assert not earlier.exists()
    assert finished(shop.paths, one) == result(one.spec)


def test_a_folder_of_trials_that_is_there_already_is_not_replaced(workshop):
    shop = workshop()
    (one,) = trials(shop, ("shuffled", "verified"))
    keep(shop.paths, result(one.spec))
    (shop.paths.root / "cells").mkdir()
    adopt(shop.paths)
    assert finished(shop.paths, one) == result(one.spec)


def test_the_key_of_a_trial_is_the_one_that_version_0_1_gave_it():
    """Recorded with version 0.1, whose name for `settings` was `rule`."""
    assert (
        SPEC.model_copy(update={"settings": {"aggregation": "krum", "max_bad_clients": 2}}).key
        == "1803913e016c4c66f05a7e5c"
    )
