import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from fccl.contribution.reported import ContributionRule, effective_clients, softmax
from fccl.records.run import Contribution

contribution = st.builds(
    Contribution, avg_loss=st.floats(0, 1e4), num_samples=st.integers(1, 10**9), seconds=st.just(1.0)
)
contributions = st.lists(contribution, min_size=1, max_size=12)
rules = st.builds(
    ContributionRule,
    mode=st.sampled_from(["cognitive", "uniform", "fedavg"]),
    source=st.sampled_from(["loss_inverse", "data_size", "data_loss_combined"]),
    temperature=st.floats(1e-3, 1e3),
    normalize=st.sampled_from(["mean", "none"]),
)


def of(samples=(), losses=()):
    pairs = zip(samples or [1] * len(losses), losses or [1.0] * len(samples), strict=True)
    return [Contribution(avg_loss=loss, num_samples=n, seconds=0) for n, loss in pairs]


@given(rules, contributions)
def test_weights_are_on_the_simplex(rule, given_contributions):
    weights = rule.weights(given_contributions)
    assert len(weights) == len(given_contributions)
    assert all(weight >= 0 for weight in weights)
    assert math.fsum(weights) == pytest.approx(1, abs=1e-12)
    assert 1 <= effective_clients(weights) <= len(weights) + 1e-9


@given(rules, contributions, st.randoms())
def test_reordering_clients_reorders_weights_to_the_bit(rule, given_contributions, random):
    order = list(range(len(given_contributions)))
    random.shuffle(order)
    weights = rule.weights(given_contributions)
    assert rule.weights([given_contributions[i] for i in order]) == tuple(weights[i] for i in order)


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=8), st.floats(-1e3, 1e3), st.floats(0.1, 100))
def test_a_constant_added_to_all_scores_changes_nothing(scores, constant, temperature):
    shifted = softmax([score + constant for score in scores], temperature)
    assert shifted == pytest.approx(softmax(scores, temperature), abs=1e-9)


@given(contributions, st.sampled_from(["loss_inverse", "data_size", "data_loss_combined"]))
def test_high_temperature_is_uniform(given_contributions, source):
    weights = ContributionRule(source=source, temperature=1e9).weights(given_contributions)
    assert weights == pytest.approx([1 / len(weights)] * len(weights), abs=1e-6)


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=8, unique=True))
def test_low_temperature_takes_the_best(samples):
    weights = ContributionRule(source="data_size", temperature=1e-6).weights(of(samples=samples))
    assert weights[samples.index(max(samples))] == pytest.approx(1)


@given(contributions, st.integers(2, 50))
def test_normalised_weights_do_not_depend_on_the_unit_of_samples(given_contributions, factor):
    rule = ContributionRule(source="data_size")
    scaled = [c.model_copy(update={"num_samples": c.num_samples * factor}) for c in given_contributions]
    assert rule.weights(scaled) == pytest.approx(rule.weights(given_contributions), abs=1e-9)


@given(contributions)
def test_more_samples_or_less_loss_never_means_less_weight(given_contributions):
    assume(len(given_contributions) > 1)
    by_size = ContributionRule(source="data_size").weights(given_contributions)
    by_loss = ContributionRule(source="loss_inverse").weights(given_contributions)
    for i, one in enumerate(given_contributions):
        for j, two in enumerate(given_contributions):
            if one.num_samples >= two.num_samples:
                assert by_size[i] >= by_size[j]
            if one.avg_loss <= two.avg_loss:
                assert by_loss[i] >= by_loss[j]


def test_the_numbers_of_the_design():
    """Derived by hand: scores 120, 50, 30 over their mean 66.67 are 1.8, 0.75, 0.45; exp and normalise."""
    exps = [math.exp(1.8), math.exp(0.75), math.exp(0.45)]
    weights = ContributionRule(source="data_size").weights(of(samples=(120, 50, 30)))
    assert weights == pytest.approx([e / sum(exps) for e in exps])
    assert [round(weight, 2) for weight in weights] == [0.62, 0.22, 0.16]


def test_raw_scores_are_the_formula_to_the_letter():
    raw = ContributionRule(source="loss_inverse", normalize="none").weights(of(losses=(2.8, 3.1, 3.5)))
    exps = [math.exp(1 / loss) for loss in (2.8, 3.1, 3.5)]
    assert raw == pytest.approx([e / sum(exps) for e in exps])
    degenerate = ContributionRule(source="data_size", normalize="none").weights(of(samples=(120, 50, 30)))
    assert degenerate[0] == pytest.approx(1)
    assert degenerate[1] == pytest.approx(math.exp(-70))


def test_fedavg_is_in_proportion_to_samples():
    assert ContributionRule(mode="fedavg").weights(of(samples=(6, 3, 1))) == pytest.approx((0.6, 0.3, 0.1))


def test_combined_score_is_samples_over_loss():
    assert ContributionRule(source="data_loss_combined").scores(of(samples=(10, 20), losses=(2.0, 5.0))) == (5.0, 4.0)


@pytest.mark.parametrize(
    "field",
    [{"avg_loss": math.nan}, {"avg_loss": math.inf}, {"avg_loss": -1e16}, {"num_samples": 0}, {"seconds": math.nan}],
)
def test_a_bad_report_cannot_be_built(field):
    with pytest.raises(ValidationError):
        Contribution(**{"avg_loss": 1.0, "num_samples": 1, "seconds": 0.0} | field)


def test_no_clients_is_an_error_not_zero_weights():
    with pytest.raises(ValueError, match="at least one"):
        ContributionRule().weights([])
