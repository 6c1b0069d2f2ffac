import numpy as np
import pytest
from scipy import stats

from fccl.apps.compare_choice import FULL_SEEDS, QUICK_SEEDS
from fccl.compare.evidence import (
    BESIDE,
    BESIDE_SEEDS,
    CEILINGS,
    JUDGING_SEEDS,
    LOOKED_AT,
    OURS,
    PRIMARY,
    RIVALS,
    TUNED,
    TUNING_SEEDS,
    has,
    methods,
    pairs,
    scenarios,
)
from fccl.compare.grids import GRIDS
from fccl.compare.scenarios import SCENARIOS
from fccl.config import load_settings
from fccl.records.comparison import ORACLE, POOLED
from tests.compare.test_verdicts import trial


def test_the_set_is_eight_scenarios_in_two_regimes_six_rivals_and_five_seeds():
    assert (len(PRIMARY), len(RIVALS), len(JUDGING_SEEDS)) == (8, 6, 5)
    assert [scenario.until_flat for scenario in scenarios()] == [False, True] * 8
    assert {method.name for method in methods()} == {OURS, *RIVALS, *BESIDE, *CEILINGS}


def test_it_has_clean_and_spoilt_scenarios_both_phases_one_who_knows_the_rules_and_a_skewed_server():
    chosen = [SCENARIOS[name] for name in PRIMARY]
    assert {one.phase for one in chosen} == {"sft", "va"}
    assert {one.has_bad_clients for one in chosen} == {True, False}
    assert any(one.bad_of_eight > 4 for one in chosen)
    assert any(one.attack == "min_max" for one in chosen)
    assert any(one.server.topics == 2 for one in chosen)


def test_every_rival_with_a_knob_has_a_value_of_its_grid_in_each_phase_and_ours_its_defaults():
    assert {name for name in RIVALS if name in GRIDS} == set(TUNED)
    for name, values in TUNED.items():
        assert set(values) == {"sft", "va"}
        assert set(values.values()) <= set(GRIDS[name].values)
    assert {method.name for method in methods() if method.tuned} == set(TUNED)


def test_no_seed_that_somebody_tunes_on_judges():
    start = load_settings().seed
    looked_at = {*TUNING_SEEDS, *range(start, start + max(FULL_SEEDS, QUICK_SEEDS))}
    assert not {*looked_at, *LOOKED_AT} & set(JUDGING_SEEDS)


def test_what_has_a_pair_has_all_seeds_and_what_stands_beside_has_two():
    seeds = {method.name: [seed for seed in JUDGING_SEEDS if has(method.name, seed)] for method in methods()}
    assert all(len(seeds[name]) == 5 for name in (OURS, *RIVALS, ORACLE))
    assert [seeds[name] for name in (*BESIDE, POOLED)] == [list(BESIDE_SEEDS)] * 2
    assert len(BESIDE_SEEDS) == 2


def results(effect, seeds=5, noise=0.01, draw=0):
    """Trials whose test loss is 1, an effect and noise, one a seed."""
    rng = np.random.default_rng(draw)
    return [trial([1.0 + effect + rng.normal(0, noise)] * 10) for _ in range(seeds)]


def world(**effects):
    return {
        name: results(effects.get(name.replace("-", "_"), 0.0), draw=place)
        for place, name in enumerate((OURS, *RIVALS))
    }


def test_a_pair_is_the_t_test_of_its_seeds_and_holms_correction_is_over_all_of_them():
    found = {"shuffled": world(fedavg=0.3), "flipped": world()}
    said = pairs(found)
    assert len(said) == 12
    plain = {}
    for pair in said:
        mine, theirs = ([one.loss for one in found[pair.scenario][name]] for name in (OURS, pair.rival))
        plain[pair.scenario, pair.rival] = stats.ttest_rel(mine, theirs).pvalue
        assert pair.p == pytest.approx(plain[pair.scenario, pair.rival])
    smallest = min(said, key=lambda pair: pair.p)
    assert (smallest.scenario, smallest.rival) == ("shuffled", "fedavg")
    assert smallest.p_holm == pytest.approx(12 * smallest.p)
    assert smallest.verdict == "better"
    assert {pair.verdict for pair in said} - {"better"} <= {"not worse", "cannot be told apart"}


def test_a_difference_that_the_correction_takes_back_is_no_verdict():
    """Alone it would be worse; among six pairs its p-value is no longer below 5 %."""
    ours = [trial([1.0 + more] * 10) for more in (0.02, 0.03, 0.05, 0.07, 0.09)]
    level = {name: [trial([1.0] * 10)] * 5 for name in RIVALS}
    alone = stats.ttest_1samp([one.loss - 1.0 for one in ours], 0.0).pvalue
    assert 0.05 / 6 < alone < 0.05
    assert {pair.verdict for pair in pairs({"shuffled": {OURS: ours, **level}})} == {"cannot be told apart"}


def test_a_model_that_cannot_be_scored_decides_its_pair_and_is_not_tested():
    found = world(fedavg=0.3)
    found["multi-krum"] = [*found["multi-krum"][:-1], trial(())]
    said = {pair.rival: pair for pair in pairs({"shuffled": found})}
    assert (said["multi-krum"].verdict, said["multi-krum"].p, said["multi-krum"].difference) == ("better", None, None)
    assert said["fedavg"].p_holm == pytest.approx(5 * said["fedavg"].p)
    broken = pairs({"shuffled": {OURS: [trial(())] * 5, "multi-krum": results(0.0)}})
    assert [pair.verdict for pair in broken] == ["worse"]


def test_two_seeds_make_no_pair():
    assert pairs({"shuffled": {OURS: results(0.0, 2), "fedavg": results(0.5, 2)}}) == ()
