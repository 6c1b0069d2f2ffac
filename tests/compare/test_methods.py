import pytest

from fccl.compare.methods import DECIDED_HERE, METHODS, QUICK
from fccl.config import Settings, load_settings
from fccl.records.comparison import FEDAVG, ORACLE


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_a_method_is_what_a_person_could_set(method):
    settings = load_settings(dict(method.settings_for(8)))
    assert all(getattr(settings, name) == value for name, value in method.settings_for(8).items())
    assert set(method.reads) <= set(Settings.model_fields)
    assert set(method.settings_for(8)) <= DECIDED_HERE


@pytest.mark.parametrize("clients", [2, 3, 4, 8, 9, 20])
def test_robust_rules_are_never_asked_for_more_than_they_can(clients):
    assert 2 * METHODS["trimmed-mean"].settings_for(clients)["max_bad_clients"] + 1 <= clients
    krum = METHODS["krum"].settings_for(clients)["max_bad_clients"]
    assert krum == 0 or 2 * krum + 3 <= clients


def test_with_eight_clients_the_trimmed_mean_stands_three_and_krum_two():
    assert METHODS["trimmed-mean"].settings_for(8)["max_bad_clients"] == 3
    assert (
        METHODS["krum"].settings_for(8)["max_bad_clients"]
        == METHODS["multi-krum"].settings_for(8)["max_bad_clients"]
        == 2
    )


def test_the_oracle_is_fedavg_that_knows():
    assert METHODS[ORACLE].settings == METHODS[FEDAVG].settings
    assert [name for name, method in METHODS.items() if method.without_bad] == [ORACLE]


def test_only_sources_of_reported_losses_believe_them():
    assert {name for name, method in METHODS.items() if method.believes_losses} == {
        "loss-inverse",
        "data-loss-combined",
    }


def test_the_quick_ones_are_methods():
    assert set(QUICK) < set(METHODS)
    assert {FEDAVG, ORACLE, "verified"} <= set(QUICK)


def test_a_method_without_the_bound_is_the_method_and_that():
    unbounded = {name: method for name, method in METHODS.items() if method.without_bound}
    assert {FEDAVG, "verified", "median", "trimmed-mean", "multi-krum"} <= {
        name.removesuffix("-unbounded") for name in unbounded
    }
    for name, method in unbounded.items():
        assert method.settings_for(8) == METHODS[name.removesuffix("-unbounded")].settings_for(8) | {
            "max_update_ratio": 0
        }
