"""Figures of a plan beside time and space: clients' examples, and the ε that the rounds will cost."""

import pytest

from fccl.config import load_settings
from fccl.data.shards import read_manifest
from fccl.library.other_figures import other_figures
from fccl.library.privacy import privacy_spec
from fccl.paths import DataPaths
from fccl.privacy.accountant import Steps, accounting_of, epsilon_of_steps
from fccl.privacy.sampling import ExampleSampling


@pytest.fixture
def manifest(small_run):
    return read_manifest(DataPaths(small_run / "data"))


def test_without_privacy_there_is_no_epsilon(manifest):
    (examples,) = other_figures(load_settings({}), manifest)
    sizes = [
        sum(each) for each in zip(*(counts.values() for counts in manifest.samples_by_client().values()), strict=True)
    ]
    assert (examples.name, examples.predicted) == ("examples of a client", f"{min(sizes)} to {max(sizes)}")


@pytest.mark.parametrize(("budget", "rounds"), [(1e6, 6), (0.0, 2)])
def test_epsilon_is_the_accountants_after_the_rounds_that_the_budget_allows(manifest, budget, rounds):
    chosen = {"dp_where": "client", "dp_noise": 5.0, "contribution_mode": "uniform", "fed_rounds": 3}
    spec = privacy_spec(load_settings(chosen))
    accounting = accounting_of(spec, 3, 3)
    budget = budget or 1.001 * accounting.epsilon(2)
    figure = other_figures(load_settings({**chosen, "dp_epsilon": budget}), manifest)[1]
    assert (figure.name, figure.predicted) == ("ε of a client", f"{accounting.epsilon(rounds):.2f}")
    assert ("stops before round 3" in figure.note) == (rounds == 2)


@pytest.mark.parametrize("budget", [1e6, 0.5])
def test_epsilon_by_example_is_that_of_the_client_that_has_most_of_it(manifest, budget):
    chosen = {"dp_where": "client", "dp_unit": "example", "fed_rounds": 3, "dp_epsilon": budget}
    settings = load_settings(chosen)
    counts, found = manifest.samples_by_client(), []
    for client in counts["sft"]:
        drawn = [ExampleSampling.of(settings.train_spec(phase), counts[phase][client]) for phase in ("sft", "va")]
        found.append(epsilon_of_steps([Steps(noise=1.0, rate=each.rate, count=3 * each.steps) for each in drawn], 1e-5))
    figure = other_figures(settings, manifest)[1]
    assert (figure.name, figure.predicted) == ("ε of an example", f"{max(found):.2f}")
    assert ("the run stops before" in figure.note) == (budget < 1)
