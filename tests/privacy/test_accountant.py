"""ε against formulas that the tests derive, and against the accountant's own figures."""

import math

import dp_accounting
import pytest
from dp_accounting import pld, rdp
from scipy import integrate, optimize
from scipy.stats import norm

from fccl.errors import SettingsError
from fccl.privacy.accountant import (
    Accounting,
    Steps,
    accounting_of,
    epsilon_of_steps,
    noise_of_all,
    smallest_noise,
)
from fccl.privacy.spec import PrivacySpec

DELTA = 1e-5


def spec(where="client", **changes):
    return PrivacySpec(**({"where": where, "clip": 1.0, "noise": 4.0, "epsilon": 8.0, "delta": DELTA} | changes))


def analytic(noise, sensitivity, releases, delta=DELTA):
    """ε of the Gaussian mechanism, exactly (Balle & Wang 2018): δ(ε) = Φ(μ/2 - ε/μ) - e^ε Φ(-μ/2 - ε/μ)."""
    mu = math.sqrt(releases) * sensitivity / noise

    def delta_at(epsilon):
        return norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)

    return optimize.brentq(lambda epsilon: delta_at(epsilon) - delta, 0, 500)


def sampled_once(noise, share, delta=DELTA):
    """ε of one Gaussian sum of a Poisson sample, by integrating the hockey stick of its two densities, both ways."""

    def with_client(x):
        return (1 - share) * norm.pdf(x, 0, noise) + share * norm.pdf(x, 1, noise)

    def without(x):
        return norm.pdf(x, 0, noise)

    def delta_at(epsilon):
        def stick(one, other):
            return integrate.quad(
                lambda x: max(0.0, one(x) - math.exp(epsilon) * other(x)), -12 * noise, 12 * noise + 1, limit=2000
            )[0]

        return max(stick(with_client, without), stick(without, with_client))

    return optimize.brentq(lambda epsilon: delta_at(epsilon) - delta, 1e-6, 50, xtol=1e-6)


@pytest.mark.parametrize(("noise", "releases"), [(4.0, 1), (4.0, 6), (1.0, 3), (30.0, 200)])
def test_noise_at_the_client_is_the_gaussian_mechanism_of_twice_the_clip(noise, releases):
    """To replace one client's data moves its change from one end of the ball to the other."""
    found = accounting_of(spec(noise=noise), 10, 2).epsilon(releases)
    assert found == pytest.approx(analytic(noise, 2.0, releases), rel=2e-3)


@pytest.mark.parametrize(
    ("noise", "clients", "per_round"), [(1.0, 10, 1), pytest.param(2.0, 5, 2, marks=pytest.mark.slow)]
)
def test_a_poisson_sample_is_the_integral_of_its_densities(noise, clients, per_round):
    found = accounting_of(spec("server", noise=noise, sampling="poisson"), clients, per_round)
    assert (found.accountant, found.relation, found.amplifies) == ("PLD", "add or remove one", True)
    assert found.epsilon(1) == pytest.approx(sampled_once(noise, per_round / clients), rel=2e-2)


def test_poisson_has_the_figure_of_the_accountant():
    counting = pld.PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    release = dp_accounting.PoissonSampledDpEvent(0.1, dp_accounting.GaussianDpEvent(2.0))
    counting.compose(dp_accounting.SelfComposedDpEvent(release, 12))
    ours = accounting_of(spec("server", noise=2.0, sampling="poisson"), 100, 10)
    assert ours.epsilon(12) == pytest.approx(counting.get_epsilon(DELTA), rel=1e-6)


def test_fixed_has_the_figure_of_the_accountant_for_twice_the_clip():
    counting = rdp.RdpAccountant(neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_ONE)
    release = dp_accounting.SampledWithoutReplacementDpEvent(100, 10, dp_accounting.GaussianDpEvent(2.0))
    counting.compose(dp_accounting.SelfComposedDpEvent(release, 12))
    ours = accounting_of(spec("server", noise=4.0), 100, 10)
    assert (ours.accountant, ours.relation, ours.amplifies) == ("RDP", "replace one", True)
    assert ours.epsilon(12) == pytest.approx(counting.get_epsilon(DELTA), rel=1e-6)


def test_fixed_with_all_clients_is_a_bound_on_the_exact_figure_and_not_far_above_it():
    ours = accounting_of(spec("server"), 5, 5)
    assert not ours.amplifies
    exact = analytic(4.0, 2.0, 6)
    assert exact <= ours.epsilon(6) <= 1.2 * exact


@pytest.mark.parametrize("sampling", ["fixed", "poisson"])
def test_sampling_makes_a_release_cheaper_and_a_plain_one_costs_as_if_all_were_asked(sampling):
    some, everyone = (accounting_of(spec("server", sampling=sampling), 20, count) for count in (2, 20))
    assert some.epsilon(3) < 0.6 * everyone.epsilon(3)
    assert some.epsilon(0, 3) == pytest.approx(everyone.epsilon(3))
    assert some.epsilon(3) < some.epsilon(2, 1) < some.epsilon(1, 2)
    assert some.epsilon(0) == 0.0


def test_releases_within_a_budget_are_the_most_that_fit():
    ours = accounting_of(spec(), 1, 1)
    for budget in (1.0, 3.0, 4.4, 1000.0):
        fitting = [count for count in range(1, 6) if ours.epsilon(count) <= budget]
        assert ours.releases_within(budget, 5) == len(fitting)


@pytest.mark.parametrize("where", [pytest.param("client", marks=pytest.mark.slow), "server"])  # by PLD, by RDP
@pytest.mark.parametrize("releases", [1, 6])
def test_the_smallest_noise_is_enough_and_a_twentieth_less_is_not(where, releases):
    ours = accounting_of(spec(where, noise=0.9), 5, 5)
    noise = smallest_noise(ours, 8.0, releases)
    assert ours.model_copy(update={"noise": noise}).epsilon(releases) <= 8.0
    assert ours.model_copy(update={"noise": 0.95 * noise}).epsilon(releases) > 8.0


def test_releases_with_unlike_noise_cost_what_one_with_the_noise_of_all_costs():
    assert noise_of_all([4.0] * 6) == pytest.approx(4.0 / math.sqrt(6))
    found = accounting_of(spec(noise=noise_of_all([2.0, 4.0])), 1, 1).epsilon(1)
    counting = pld.PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_ONE)
    for noise in (2.0, 4.0):
        counting.compose(dp_accounting.GaussianDpEvent(noise))
    assert found == pytest.approx(counting.get_epsilon(DELTA), rel=1e-3)


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("fccl.extras.find_spec", lambda module: None)
    ours = Accounting(accountant="PLD", relation="replace one", noise=3.25, clients=1, per_round=1, delta=DELTA)
    with pytest.raises(SettingsError, match="needs dp-accounting") as caught:
        ours.epsilon(1)
    assert caught.value.hint == 'pip install "fccl[privacy]"'


def test_steps_of_dp_sgd_have_the_figure_of_the_accountant():
    """Rounds of several rates together, as of a client with instructions and pairs."""
    counting = pld.PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    for rate, count in ((0.1, 40), (0.25, 12)):
        step = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(1.5))
        counting.compose(dp_accounting.SelfComposedDpEvent(step, count))
    parts = [Steps(noise=1.5, rate=0.1, count=30), Steps(noise=1.5, rate=0.25, count=12)]
    parts.append(Steps(noise=1.5, rate=0.1, count=10))
    assert epsilon_of_steps(parts, DELTA) == pytest.approx(counting.get_epsilon(DELTA), rel=1e-4)


def test_a_step_of_a_poisson_sample_is_the_integral_of_its_densities():
    assert epsilon_of_steps([Steps(noise=1.0, rate=0.1, count=1)], DELTA) == pytest.approx(
        sampled_once(1.0, 0.1), rel=2e-2
    )


def test_steps_that_draw_all_examples_are_the_gaussian_mechanism_of_one_clip():
    """One record more or less moves the sum by one clip, not by two."""
    assert epsilon_of_steps([Steps(noise=4.0, count=6)], DELTA) == pytest.approx(analytic(4.0, 1.0, 6), rel=2e-3)
    assert epsilon_of_steps([], DELTA) == epsilon_of_steps([Steps(noise=1.0, count=0)], DELTA) == 0.0
