"""The ledger of a secret's owner: once for the same, twice for what is not, and never forgotten."""

import math
import stat

import numpy as np
import pytest

from fccl.errors import StorageError
from fccl.privacy.accountant import Steps, accounting_of, epsilon_of_steps
from fccl.privacy.spec import PrivacySpec
from fccl.privacy.spent import NAME, Release, Spent, epsilon_of

FIRST = Release(run_id="run", round=0, secret="a" * 16, tag="t", noise=1.0)


def with_(**changes):
    return FIRST.model_copy(update=changes)


def test_the_same_release_is_spent_once_whatever_process_writes_it(tmp_path):
    Spent(tmp_path).add(FIRST)
    again = Spent(tmp_path)
    again.add(FIRST)
    assert Spent(tmp_path).releases == again.releases == [FIRST]
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600


def test_releases_of_one_round_are_not_cheaper_for_its_draw(tmp_path):
    spent = Spent(tmp_path)
    for release in (FIRST, with_(round=1), with_(round=1, secret="b" * 16), with_(round=2), with_(run_id="other")):
        spent.add(release)
    assert spent.counted("run") == (2, 2)
    assert spent.counted("run", [with_(round=3)]) == (3, 2)
    assert spent.counted("run", [with_(tag="another sum")]) == (1, 4)
    assert [each.run_id for each in spent.of("other")] == ["other"]


@pytest.mark.parametrize("content", [b"{", b'{"run_id": "run"}\n', b"\x00\n"])
def test_a_damaged_ledger_is_an_error_for_what_is_spent_must_not_be_forgotten(tmp_path, content):
    Spent(tmp_path).add(FIRST)
    with (tmp_path / NAME).open("ab") as file:
        file.write(content)
    with pytest.raises(StorageError, match="what is spent"):
        Spent(tmp_path)


def test_a_line_of_an_earlier_version_is_of_a_whole_client(tmp_path):
    (tmp_path / NAME).write_text('{"run_id":"run","round":0,"secret":"s","tag":"t","noise":2.0}\n')
    assert Spent(tmp_path).releases == [with_(secret="s", noise=2.0)]


EXAMPLES = with_(unit="example", rate=0.1, steps=30)


def test_whole_updates_cost_a_client_what_the_accountant_says_and_an_example_half_the_noise():
    """A clipped change moves by two clips at most, whoever's record is another."""
    spec = PrivacySpec(where="client", clip=1.0, noise=8.0, epsilon=1.0, delta=1e-5)
    both = [with_(noise=8.0), with_(round=1, noise=8.0)]
    assert epsilon_of(both, "client", 1e-5) == pytest.approx(accounting_of(spec, 1, 1).epsilon(2), rel=1e-6)
    assert epsilon_of(both, "example", 1e-5) == pytest.approx(epsilon_of(both, "client", 1e-5), rel=2e-3)


def test_updates_by_example_cost_an_example_their_steps_and_bound_nothing_for_the_client():
    steps = [Steps(noise=1.0, rate=0.1, count=60)]
    twice = [EXAMPLES, EXAMPLES.model_copy(update={"round": 1})]
    assert epsilon_of(twice, "example", 1e-5) == epsilon_of_steps(steps, 1e-5)
    mixed = epsilon_of([*twice, with_(round=2, noise=8.0)], "example", 1e-5)
    assert mixed == epsilon_of_steps([*steps, Steps(noise=4.0, count=1)], 1e-5)
    assert mixed > epsilon_of_steps(steps, 1e-5)
    assert epsilon_of([FIRST, EXAMPLES], "client", 1e-5) == math.inf
    assert epsilon_of([], "client", 1e-5) == epsilon_of([], "example", 1e-5) == 0.0


def test_updates_by_example_of_one_round_count_as_if_they_had_the_same_batches():
    """Two looks at each batch: the integral over its densities, of one step, is the figure (numpy alone)."""
    rate, noise, delta = 0.1, 1.0, 1e-3
    one = with_(unit="example", rate=rate, steps=1)
    twice = epsilon_of([one, one.model_copy(update={"tag": "other bits"})], "example", delta)
    assert twice == pytest.approx(looked_at_twice(rate, noise, delta), rel=2e-2)
    lost = epsilon_of([one, one.model_copy(update={"secret": "b" * 16})], "example", delta)
    assert lost == epsilon_of_steps([Steps(noise=noise, rate=rate, count=2)], delta) < twice


def looked_at_twice(rate, noise, delta):
    """ε at which the hockey-stick divergence of (1 - rate) N(0, I) + rate N((1, 1), I) beside N(0, I) is delta, the
    larger of both directions; in two dimensions, on a grid.
    """
    axis = np.linspace(-9, 10, 1_201)
    x, y = np.meshgrid(axis, axis, indexing="ij")
    cell = (axis[1] - axis[0]) ** 2
    without = np.exp(-(x**2 + y**2) / (2 * noise**2)) / (2 * np.pi * noise**2)
    moved = np.exp(-((x - 1) ** 2 + (y - 1) ** 2) / (2 * noise**2)) / (2 * np.pi * noise**2)
    having = (1 - rate) * without + rate * moved

    def exceeded(epsilon):
        found = ((having, without), (without, having))
        return max(float(np.maximum(p - math.exp(epsilon) * q, 0).sum()) * cell for p, q in found)

    low, high = 0.0, 10.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if exceeded(middle) > delta else (low, middle)
    return high
