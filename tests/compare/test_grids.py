import pytest

from fccl.compare.grids import GRIDS, tuned, tuned_for, with_value
from fccl.compare.methods import METHODS
from fccl.config import load_settings
from fccl.errors import SettingsError
from fccl.library.narrow import aggregation_rule


def value_of(setting, text):
    return getattr(load_settings({setting: text}), setting)


@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_is_of_a_setting_that_its_method_reads_and_holds_its_default(name):
    grid, settings = GRIDS[name], load_settings()
    assert grid.setting in METHODS[name].reads
    assert len(set(grid.values)) == len(grid.values) <= 4
    for value in grid.values:
        assert getattr(load_settings({grid.setting: value}), grid.setting) == value
    default = getattr(settings, grid.setting)
    if grid.setting in ("server_lr", "server_momentum"):  # which leave it to the rule
        default = getattr(aggregation_rule(load_settings({"aggregation": name})), grid.setting)
    assert default in grid.values


@pytest.mark.parametrize(
    ("name", "setting", "value"), [("fedadam@0.1", "server_lr", 0.1), ("fedlaw@1", "fedlaw_lr", 1)]
)
def test_a_name_with_a_value_is_that_method_at_that_value(name, setting, value):
    found, plain = tuned(name, value_of), METHODS[name.partition("@")[0]]
    assert found.name == name
    assert f"{setting.upper()}={value:g}" in found.title
    assert found.settings_for(8) == {**plain.settings_for(8), setting: value}
    assert set(found.reads) == set(plain.reads) - {setting}
    assert with_value(plain, value) == found


def test_a_name_without_a_value_is_none_of_them():
    assert tuned("fedadam", value_of) is None


@pytest.mark.parametrize(
    ("name", "says", "hint"),
    [
        ("krum@2", "krum@2: krum has no knob to tune", "these have: fedprox"),
        ("fedadam@-1", "SERVER_LR=-1", ""),
        ("fedlaw@much", "FEDLAW_LR=much", ""),
    ],
)
def test_what_cannot_be_tuned_so_is_one_line(name, says, hint):
    with pytest.raises(SettingsError, match=says) as caught:
        tuned(name, value_of)
    assert hint in caught.value.hint


def test_values_of_the_phases_are_the_methods_own_and_no_person_sets_them():
    plain = METHODS["fltrust"]
    found = tuned_for(plain, {"sft": 2.0})
    assert (found.name, found.title) == (plain.name, plain.title)
    assert found.settings_for(8, "sft") == {**plain.settings_for(8), "fltrust_lr": 2.0}
    assert found.settings_for(8, "va") == plain.settings_for(8) == found.settings_for(8)
    assert set(found.reads) == set(plain.reads) - {"fltrust_lr"}
    assert tuned_for(plain, {}) is plain
