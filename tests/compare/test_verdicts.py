import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.compare.values import TrialResult, TrialSpec
from fccl.compare.verdicts import Judge, gap_closed, judge, minus, standing
from fccl.records.comparison import LEAST_DIFFERENCE
from fccl.records.evaluation import Estimate
from fccl.specs import ModelSpec, RoundPlan, TrainSpec

SPEC = TrialSpec(
    versions={},
    model=ModelSpec(name="m", lora_r=1, lora_alpha=1, max_length=8),
    model_sha256="",
    phase="sft",
    train=TrainSpec(epochs=1, learning_rate=0.1, batch_size=1, warmup=0, max_grad_norm=1),
    plan=RoundPlan(fed_rounds=1, num_clients=2, clients_per_round=2, seed=0),
    start="",
    clients=(),
    way="federated",
    settings={},
    validation="",
    test="",
    eval_batch_size=1,
)


def trial(losses, units=None, **more):
    units = np.ones(len(losses)) if units is None else units
    return TrialResult(
        spec=SPEC, seconds=0, training_seconds=0, weighing_seconds=0, losses=tuple(losses), units=tuple(units), **more
    )


def world(
    seeds=5, examples=80, effects=(("fedavg", 0.0), ("oracle", -0.2), ("mine", -0.1)), noise=0.02, spread=0.0, draw=0
):
    """Methods whose true difference to FedAvg is known; examples and seeds have difficulties of their own, which all
    methods share.
    """
    rng = np.random.default_rng(draw)
    found = {name: [] for name, _ in effects}
    for _ in range(seeds):
        hard, tokens = rng.gamma(2.0, 0.5, examples), rng.integers(3, 30, examples)
        for name, effect in effects:
            wobble = rng.normal(0, spread) if name != "fedavg" else 0.0
            found[name].append(trial((hard + effect + wobble + rng.normal(0, noise, examples)) * tokens, tokens))
    return found


def test_a_known_effect_is_found_with_its_sign_and_size():
    said = judge(world(), 1000, 1)
    mine = said["mine"]
    assert mine.verdict == "better"
    assert mine.difference.low < -0.1 < mine.difference.high
    assert mine.gap_closed.low < 0.5 < mine.gap_closed.high
    assert said["oracle"].gap_closed.value == pytest.approx(1.0)
    assert said["fedavg"].difference is None
    assert said["fedavg"].verdict is None


def test_worse_is_worse():
    said = judge(world(effects=(("fedavg", 0.0), ("mine", 0.1))), 500, 1)
    assert said["mine"].verdict == "worse"
    assert said["mine"].gap_closed is None


@pytest.mark.parametrize(("seeds", "spread"), [(5, 0.0), (5, 0.3), (2, 0.0), (2, 0.3)])
def test_bootstrap_intervals_are_as_wide_as_is_said_of_them(seeds, spread):
    """Where there is nothing to be found: too wide where seeds agree, too narrow where they do not, by what decision 13
    says.
    """
    said = judged_without_any_effect(seeds, spread)
    within = 2 * 0.3**2 * (1 + 60.67 / 16**2) / 40  # of a seed's mean: two methods' noise, responses of 3 to 29 tokens
    truth = spread**2 + within
    expected = ((seeds - 1) / seeds * truth + within) / truth
    drawn = np.mean([((one.bootstrap.high - one.bootstrap.low) / (2 * 1.96)) ** 2 for one in said])
    assert np.sqrt(drawn / np.var([one.bootstrap.value for one in said])) == pytest.approx(np.sqrt(expected), rel=0.1)


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_from_three_seeds_on_a_verdict_is_wrong_in_one_of_twenty_however_seeds_differ(spread):
    """The bootstrap of three seeds is wrong much more often where they differ: what Student's t is for."""
    said = judged_without_any_effect(3, spread)
    missed = [not one.difference.low <= 0 <= one.difference.high for one in said]
    by_bootstrap = [not one.bootstrap.low <= 0 <= one.bootstrap.high for one in said]
    assert np.mean(missed) <= 0.09
    assert (np.mean(by_bootstrap) > 0.1) == (spread > 0)
    assert np.mean([one.verdict in ("better", "worse") for one in said]) <= np.mean(missed)


def judged_without_any_effect(seeds, spread):
    worlds = (
        world(seeds, 40, (("fedavg", 0.0), ("mine", 0.0)), noise=0.3, spread=spread, draw=draw) for draw in range(200)
    )
    return [judge(each, 200, draw)["mine"] for draw, each in enumerate(worlds)]


def test_seeds_that_disagree_make_the_interval_wide():
    calm, wild = (judge(world(spread=spread), 500, 1)["mine"].difference for spread in (0.0, 0.3))
    assert wild.high - wild.low > 5 * (calm.high - calm.low)


def test_agrees_with_an_independent_bootstrap():
    found = world(seeds=4, examples=60, spread=0.05)
    said = judge(found, 4000, 3)["mine"].bootstrap
    rng, draws = np.random.default_rng(0), []
    pairs = [
        (np.array(mine.losses), np.array(base.losses), np.array(mine.units))
        for mine, base in zip(found["mine"], found["fedavg"], strict=True)
    ]
    for _ in range(4000):
        parts = []
        for seed in rng.integers(len(pairs), size=len(pairs)):
            mine, base, units = pairs[seed]
            drawn = rng.integers(len(units), size=len(units))
            parts.append((mine[drawn].sum() - base[drawn].sum()) / units[drawn].sum())
        draws.append(np.mean(parts))
    low, high = np.quantile(draws, [0.025, 0.975])
    width = high - low
    assert said.value == pytest.approx(np.mean([(m.sum() - b.sum()) / u.sum() for m, b, u in pairs]))
    assert abs(said.low - low) < 0.1 * width
    assert abs(said.high - high) < 0.1 * width


def test_one_seed_is_the_bootstrap_over_its_examples():
    from fccl.evaluation.bootstrap import Bootstrap

    found = world(seeds=1)
    said = judge(found, 4000, 3)["mine"].difference
    mine, base = found["mine"][0], found["fedavg"][0]
    plain = Bootstrap(4000, 9).ratio(np.subtract(mine.losses, base.losses), mine.units)
    assert said.value == pytest.approx(plain.value)
    assert said.low == pytest.approx(plain.low, abs=0.1 * (plain.high - plain.low))
    assert said.high == pytest.approx(plain.high, abs=0.1 * (plain.high - plain.low))


def test_the_same_trials_give_the_same_figures_and_a_method_more_changes_nothing():
    found = world()
    assert judge(found, 300, 1) == judge(dict(found), 300, 1)
    fewer = {name: trials for name, trials in found.items() if name != "oracle"}
    assert judge(fewer, 300, 1)["mine"].difference == judge(found, 300, 1)["mine"].difference


def test_no_gap_where_the_oracle_is_no_better():
    found = world(effects=(("fedavg", 0.0), ("oracle", 0.05), ("mine", -0.1)))
    assert judge(found, 300, 1)["mine"].gap_closed is None


def test_a_model_that_cannot_be_scored_is_worse_and_one_that_can_is_better():
    found = world()
    broken = dict(found, mine=[*found["mine"][:-1], trial(())])
    said = judge(broken, 300, 1)["mine"]
    assert (said.loss, said.difference, said.gap_closed, said.verdict) == (None, None, None, "worse")
    hopeless = dict(found, fedavg=[trial(())] * 5)
    assert judge(hopeless, 300, 1)["mine"].verdict == "better"
    both = dict(hopeless, mine=[trial(())] * 5)
    assert judge(both, 300, 1)["mine"].verdict == "cannot be told apart"


def test_too_few_examples_for_a_verdict():
    found = world(seeds=1, examples=5)
    assert judge(found, 300, 1)["mine"].verdict == "too few examples"


def test_accuracy_counts_right_among_the_decided():
    right, decided = (1.0, 0.0, 1.0, 0.0) * 10, (1.0, 1.0, 1.0, 0.0) * 10
    said = judge({"fedavg": [trial([0.5] * 40, right=right, decided=decided)]}, 300, 1)["fedavg"]
    assert said.accuracy.value == pytest.approx(2 / 3)
    assert said.accuracy.low < 2 / 3 < said.accuracy.high


@given(st.lists(st.integers(2, 9), min_size=1, max_size=4), st.integers(0, 99))
def test_a_constant_has_no_interval(counts, seed):
    court = Judge(100, seed, tuple(counts))
    found = court.mean_ratio([[3.0] * n for n in counts], [[2.0] * n for n in counts])
    assert found.value == pytest.approx(1.5)
    assert found.draws == pytest.approx(np.full(100, 1.5))


@given(st.floats(-2, 2), st.integers(0, 50))
def test_the_gap_closed_is_linear_in_the_loss(share, seed):
    court, rng = Judge(200, seed, (30,)), np.random.default_rng(seed)
    hard = rng.gamma(2.0, 0.5, 30) + 1
    base, best, mine = (court.mean_ratio([hard - 0.4 * part], [np.ones(30)]) for part in (0.0, 1.0, share))
    found = gap_closed(mine, base, best)
    assert found.value == pytest.approx(share, abs=1e-6)
    assert found.low == pytest.approx(share, abs=1e-5)
    assert minus(base, best).value == pytest.approx(0.4)


def test_the_interval_of_three_seeds_is_students_t_over_their_differences():
    """t of two degrees of freedom has the quantile 4.3027 at 97.5 %: sqrt(2) x / sqrt(1 - x²), x = 0.95."""
    found = world(seeds=3, spread=0.05)
    said = judge(found, 300, 1)["mine"].difference
    each = [mine.loss - base.loss for mine, base in zip(found["mine"], found["fedavg"], strict=True)]
    reach = np.sqrt(2) * 0.95 / np.sqrt(1 - 0.95**2) * np.std(each, ddof=1) / np.sqrt(3)
    assert (said.low, said.high) == pytest.approx((np.mean(each) - reach, np.mean(each) + reach))


def test_with_two_seeds_the_verdict_is_the_bootstraps():
    said = judge(world(seeds=2), 300, 1)["mine"]
    assert said.difference == said.bootstrap


LEAST = LEAST_DIFFERENCE


@pytest.mark.parametrize(
    ("low", "value", "high", "verdict"),
    [
        (-0.3, -0.2, -0.1, "better"),
        (0.1, 0.2, 0.3, "worse"),
        (-0.3, -0.1, 0.1, "cannot be told apart"),
        (-0.3, -0.2, LEAST / 2, "not worse"),
        (-LEAST / 2, -LEAST / 4, -LEAST / 8, "not worse"),  # surely lower, by what does not count
        (LEAST / 8, LEAST / 4, LEAST / 2, "not worse"),  # surely higher, by what does not count
        (LEAST / 8, LEAST / 2, 2 * LEAST, "cannot be told apart"),
    ],
)
def test_a_verdict_is_of_the_interval_and_the_least_difference_that_counts(low, value, high, verdict):
    assert standing(Estimate(value=value, low=low, high=high, n=100)) == verdict


def test_the_least_difference_is_one_per_cent_of_the_perplexity():
    assert np.exp(LEAST) == pytest.approx(1.01)


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1))
def test_no_two_methods_are_both_better_than_each_other(value, below, above):
    there = standing(Estimate(value=value, low=value - below, high=value + above, n=100))
    back = standing(Estimate(value=-value, low=-value - above, high=-value + below, n=100))
    assert (there == "better") == (back == "worse")
    assert (there == "worse") == (back == "better")


def test_the_gap_is_told_against_the_pooled_data_and_against_the_oracle():
    effects = (("fedavg", 0.0), ("oracle", -0.2), ("pooled", -0.4), ("mine", -0.1))
    said = judge(world(effects=effects), 1000, 1)["mine"]
    assert said.gap_pooled.low < 0.25 < said.gap_pooled.high
    assert said.gap_closed.low < 0.5 < said.gap_closed.high


def test_the_figure_beside_the_loss_is_its_own_mean_over_seeds():
    beside = [trial([0.5] * 40, aside=(1.0,) * hits + (0.0,) * (10 - hits), aside_units=(1.0,) * 10) for hits in (2, 6)]
    said = judge({"fedavg": beside}, 300, 1)["fedavg"].aside
    assert said.value == pytest.approx(0.4)
    assert said.n == 20
    assert judge({"fedavg": [trial([0.5] * 40)]}, 300, 1)["fedavg"].aside is None
