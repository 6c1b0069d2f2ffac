import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.compare.scenarios import QUICK, SCENARIOS, bad_count
from fccl.specs import DataSpec, PartitionSpec

BASE = DataSpec(
    sft_data="builtin",
    va_data="builtin",
    test_examples=9,
    validation_examples=9,
    partition=PartitionSpec(num_clients=8, alpha=1.0, seed=0),
)
BAD = [scenario for scenario in SCENARIOS.values() if scenario.has_bad_clients]


def test_three_of_eight():
    assert bad_count(8) == 3


@given(clients=st.integers(2, 40), seed=st.integers(0, 1000))
def test_the_bad_clients_are_clients_and_never_all(clients, seed):
    bad = SCENARIOS["shuffled"].bad_clients(clients, seed)
    assert 1 <= len(bad) < clients
    assert list(bad) == sorted(set(bad))
    assert set(bad) <= set(range(clients))


@given(seed=st.integers(0, 1000))
def test_all_scenarios_of_a_seed_have_the_same_bad_clients(seed):
    """A majority has those and others."""
    three = SCENARIOS["shuffled"].bad_clients(8, seed)
    for scenario in BAD:
        assert set(three) <= set(scenario.bad_clients(8, seed))
        assert len(scenario.bad_clients(8, seed)) == (5 if "majority" in scenario.name else 3)


def test_other_seeds_have_other_bad_clients():
    assert len({SCENARIOS["shuffled"].bad_clients(8, seed) for seed in range(30)}) > 10


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name.startswith(("clean", "sizes"))])
def test_nobody_is_bad_where_all_is_clean(name):
    scenario = SCENARIOS[name]
    assert scenario.bad_clients(8, 1) == ()
    assert scenario.data_spec(BASE, 1) == scenario.data_spec(BASE, 1, spoilt=False)


@pytest.mark.parametrize("scenario", BAD, ids=lambda scenario: scenario.name)
def test_scenarios_with_bad_clients_differ_from_the_clean_data_in_the_noise_alone(scenario):
    spoilt, clean = scenario.data_spec(BASE, 3), scenario.data_spec(BASE, 3, spoilt=False)
    assert spoilt.partition == clean.partition == SCENARIOS["shuffled"].data_spec(BASE, 3).partition
    assert spoilt.noisy_clients == (scenario.bad_clients(8, 3) if scenario.noise else ())
    assert DataSpec.model_validate(spoilt.model_dump()) == spoilt


def test_honest_clients_do_nothing_and_every_second_free_rider_adds_noise():
    rider = SCENARIOS["free-riders"]
    assert [rider.attack_of(client, (1, 4, 6)) for client in range(8)] == [
        "none",
        "free_rider",
        "none",
        "none",
        "free_rider_noise",
        "none",
        "free_rider",
        "none",
    ]
    assert SCENARIOS["sign-flip"].attack_of(4, (1, 4, 6)) == "sign_flip"


def test_of_colluders_the_first_sacrifices_itself_and_the_others_attack():
    for name in ("colluders", "colluders-va"):
        assert [SCENARIOS[name].attack_of(client, (1, 4, 6)) for client in (0, 1, 4, 6)] == [
            "none",
            "sacrifice",
            "reversal",
            "reversal",
        ]


def test_the_quick_ones_are_scenarios():
    assert set(QUICK) < set(SCENARIOS)


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=lambda scenario: scenario.name)
def test_until_flat_a_scenario_differs_in_its_rounds_alone(scenario):
    longer = scenario.unhurried
    assert longer.until_flat
    assert longer.name not in SCENARIOS
    assert longer.bad_clients(8, 5) == scenario.bad_clients(8, 5)
    assert longer.data_spec(BASE, 5) == scenario.data_spec(BASE, 5)


def test_honest_clients_may_do_things_of_their_own_and_nobody_is_bad():
    noisy = SCENARIOS["privacy-noise"]
    assert noisy.bad_clients(8, 3) == ()
    others = noisy.others(8, 3)
    assert others == SCENARIOS["shuffled"].bad_clients(8, 3)
    assert {noisy.attack_of(client, others) for client in others} == {"dp_noise"}


def test_of_those_who_game_the_scores_every_second_mirrors_a_client():
    gaming = SCENARIOS["score-gaming"]
    assert [gaming.attack_of(client, (1, 4, 6)) for client in (1, 4, 6)] == ["copycat", "mirror", "copycat"]
