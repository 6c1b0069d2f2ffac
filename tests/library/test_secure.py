"""From settings to secure aggregation: what is refused before anything starts, and the numbers that a sum has."""

import pytest

from fccl.config import load_settings
from fccl.errors import SettingsError
from fccl.library.combinations import COMBINATIONS, MEANS
from fccl.library.ignored import refuse_ignored
from fccl.library.narrow import settled
from fccl.library.privacy import Guard, require_sound
from fccl.library.secure import secure_aggregation, with_secure_sums
from fccl.privacy.fixed_point import MOST_BITS
from tests.library.test_privacy import named

SOUND = {"secure_aggregation": True, "contribution_mode": "fedavg"}


def of(**changes):
    return load_settings(SOUND | changes)


@pytest.mark.parametrize("each", COMBINATIONS, ids=lambda each: f"{each.setting}-{each.what[:12]}")
def test_a_row_of_the_table_is_refused_where_it_says_so_with_its_reason(each):
    example = named(each) or {}
    if "secure" not in each.refused:
        if not any("secure" in other.refused and other.chosen(of(**example)) for other in COMBINATIONS):
            secure_aggregation(of(**example) if example.get("dp_where") is None else of())
        return
    assert example, "a row that refuses has an example"
    with pytest.raises(SettingsError) as caught:
        secure_aggregation(of(**example))
    assert str(caught.value).endswith(f"does not go with SECURE_AGGREGATION=true: {each.secure}")
    assert caught.value.hint


@pytest.mark.parametrize("rule", MEANS)
@pytest.mark.parametrize("mode", ["uniform", "fedavg"])
def test_rules_that_one_mean_is_enough_for_go_with_it(rule, mode):
    assert secure_aggregation(of(aggregation=rule, contribution_mode=mode)) is not None


def test_it_goes_with_noise_at_the_client_whose_clip_is_the_bound_and_not_with_noise_at_the_server():
    noised = of(contribution_mode="uniform", dp_where="client", dp_noise=8.0, dp_clip=0.5)
    found = secure_aggregation(noised)
    assert (found.clip, found.fixed.bound, found.fixed.most) == (0.0, 0.5 + 9 * 8.0 * 0.5, 1)
    with pytest.raises(SettingsError, match="SECURE_AGGREGATION=True does not go with DP_WHERE=server"):
        require_sound(of(contribution_mode="uniform", dp_where="server", dp_noise=8.0))
    with pytest.raises(SettingsError, match="SECURE_CLIP=10 has no effect with DP_WHERE=client"):
        with_secure_sums(noised, lambda line: None, {"secure_clip": 10.0})


def test_a_sum_that_may_overflow_is_refused_with_the_numbers():
    with pytest.raises(SettingsError, match=r"70 clients of at most 1,000,000 examples.* more than the 2\^30 - 1"):
        secure_aggregation(of(num_clients=70, secure_max_samples=1_000_000))


@pytest.mark.parametrize(("clients", "per_round"), [(1, 0), (200, 0), (200, 76), (3, 1)])
def test_a_round_of_one_client_or_of_too_many_is_refused(clients, per_round):
    with pytest.raises(SettingsError, match="a secure sum is of 2 to 75"):
        secure_aggregation(of(num_clients=clients, clients_per_round=per_round))


@pytest.mark.parametrize(("name", "value"), [("keep_updates_mb", 5), ("max_update_ratio", 9.0)])
def test_what_needs_single_updates_is_set_to_0_and_refused_as_an_argument(name, value):
    with pytest.raises(SettingsError, match=f"{name.upper()}={value} does not go with SECURE_AGGREGATION=true"):
        settled(of(**{name: value}), lambda line: None, {name: value})
    told = []
    assert getattr(settled(of(), told.append, {}), name) == 0
    assert "the sum of a round's 3 clients, of which 2 are needed" in told[-1]
    assert "in steps of 2^-" in told[-1]


@pytest.mark.parametrize("name", ["secure_clip", "secure_max_samples", "secure_threshold"])
def test_a_setting_of_it_alone_is_refused(name):
    with pytest.raises(SettingsError, match="has no effect without SECURE_AGGREGATION") as caught:
        refuse_ignored(load_settings(), {name: "1"})
    assert caught.value.hint == "leave it out; it is read under SECURE_AGGREGATION that is not false"


def test_by_example_dp_clip_bounds_gradients_and_secure_clip_the_change():
    """Cut to DP_CLIP's bound, a small one would hold every number of the change near 0."""
    found = secure_aggregation(of(dp_where="client", dp_unit="example", dp_clip=1e-4, contribution_mode="uniform"))
    assert (found.fixed.bound, found.clip) == (10.0, 10.0)


@pytest.mark.parametrize("clip", [1e10, 1e308])
def test_a_bound_that_no_sum_has_room_for_is_an_error(clip):
    with pytest.raises(SettingsError, match="no room for changes"):
        secure_aggregation(of(dp_where="client", dp_clip=clip, contribution_mode="uniform"))


def test_a_tiny_bound_is_no_error():
    found = secure_aggregation(of(dp_where="client", dp_clip=1e-320, contribution_mode="uniform"))
    assert found.fixed.bits == MOST_BITS


def test_without_it_nothing_is_made():
    assert secure_aggregation(load_settings()) is None


def test_a_client_that_is_started_with_it_sends_no_other_update_and_no_figure():
    own = Guard.of_client(load_settings({"secure_aggregation": True}))
    assert own.only_masked
    assert own.says_nothing
    assert own.masking().least == 2
    assert Guard.of_client(load_settings({"secure_aggregation": True, "min_clients": 10})).masking().least == 10
    assert not Guard.of_client(load_settings()).says_nothing
    assert not Guard.of_run(load_settings({"secure_aggregation": True})).only_masked
