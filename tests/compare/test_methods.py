import sys

import pytest

from fccl.compare.methods import DECIDED_HERE, METHODS, QUICK, own_method
from fccl.config import Settings, load_settings
from fccl.errors import SettingsError
from fccl.records.comparison import FEDAVG, ORACLE
from tests.own_rules import write


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_a_method_is_what_a_person_could_set(method):
    settings = load_settings(dict(method.settings_for(8)))
    assert all(getattr(settings, name) == value for name, value in method.settings_for(8).items())
    assert set(method.reads) <= set(Settings.model_fields) - DECIDED_HERE
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
    assert METHODS["oracle-verified"].settings == METHODS["verified"].settings
    assert [name for name, method in METHODS.items() if method.without_bad] == [ORACLE, "oracle-verified"]


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


@pytest.mark.parametrize(
    ("name", "reads"),
    [
        (FEDAVG, ()),
        ("base", ()),
        ("fedprox", ("prox_mu",)),
        ("verified", ("verify_examples", "verify_prior", "verify_steps", "verify_temperature")),
        ("data-size", ("contribution_normalize", "contribution_temperature")),
        ("multi-krum", ("krum_keep",)),
        ("multi-krum-unbounded", ("krum_keep",)),
    ],
)
def test_a_method_reads_what_its_rules_read(name, reads):
    assert METHODS[name].reads == reads


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return write(tmp_path, "own_rules_of_a_comparison")


def test_a_class_of_ones_own_is_a_method(own):
    known = load_settings().model_dump()
    weighing = own_method(f"{own}:Asks", known)
    assert (weighing.name, weighing.title, weighing.own) == (f"{own}:Asks",) * 2 + ((f"{own}:Asks",),)
    assert weighing.settings["contribution_source"] == f"{own}:Asks"
    assert weighing.reads == ("contribution_temperature", "verify_examples", "verify_steps")
    assert weighing.believes_losses
    combining = own_method(f"{own}:First", known)
    assert combining.settings == {"contribution_mode": "fedavg", "aggregation": f"{own}:First"}
    assert combining.reads == ("krum_keep",)


def test_a_class_that_is_no_rule_is_no_method(own):
    with pytest.raises(SettingsError, match="NoRule has no method weigh"):
        own_method(f"{own}:NoRule", {})
