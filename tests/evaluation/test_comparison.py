import math

import numpy as np
import pytest

from fccl.evaluation.bootstrap import Bootstrap
from fccl.evaluation.comparison import compare, compare_all, perplexity_ratio
from fccl.evaluation.suite import Evaluated, EvaluationSplit
from fccl.model.scoring import PairScores, SftScores


def evaluated(name, nll, margins, exact=()):
    """A model with these numbers; every response has two tokens."""
    two = np.full(len(nll), 2)
    pairs = PairScores(np.array(margins), np.zeros(len(margins)), np.full(len(margins), 2), np.full(len(margins), 4))
    return Evaluated(
        name, None, EvaluationSplit([], []), SftScores(np.array(nll), two), pairs, np.array(exact, dtype=float), (), 0
    )


WEAK = evaluated("base", [8.0 + n % 3 for n in range(12)], [-1.0, 1.0] * 5 + [0.0, 0.0], [0] * 8 + [1] * 2)
STRONG = evaluated("SFT", [2.0 + n % 2 for n in range(12)], [2.0] * 10 + [0.0, 3.0], [1] * 10)


def by_measure(comparison):
    return {difference.measure: difference for difference in comparison.differences}


def test_a_better_model_is_better_and_the_other_way_round_worse(boot):
    forth, back = by_measure(compare(WEAK, STRONG, boot)), by_measure(compare(STRONG, WEAK, boot))
    assert forth.keys() == back.keys()
    assert {difference.verdict for difference in forth.values()} == {"better"}
    assert {difference.verdict for difference in back.values()} == {"worse"}
    for name, difference in forth.items():
        other = back[name].estimate.value
        assert difference.estimate.value == pytest.approx(1 / other if difference.kind == "ratio" else -other)


def test_differences_are_those_of_the_models_figures(boot):
    found = by_measure(compare(WEAK, STRONG, boot))
    assert found["response perplexity"].estimate.value == pytest.approx(math.exp((30 - 108) / 24))
    assert found["preference accuracy"].estimate.value == pytest.approx(1.0 - 0.5)
    assert found["preference accuracy"].estimate.n == 10  # what is a tie for either model does not count
    assert found["mean margin"].estimate.value == pytest.approx((23 - 0) / 12)
    assert found["exact answers"].estimate.value == pytest.approx(0.8)


def test_a_model_does_not_differ_from_itself(boot):
    for difference in compare(STRONG, STRONG, boot).differences:
        neutral = 1.0 if difference.kind == "ratio" else 0.0
        assert (difference.estimate.value, difference.estimate.low, difference.estimate.high) == (
            neutral,
            neutral,
            neutral,
        )
        assert difference.verdict == "no significant difference"


def test_without_answers_and_with_nothing_but_ties_these_are_left_out(boot):
    ties = evaluated("ties", [1.0] * 8, [0.0] * 8)
    assert set(by_measure(compare(ties, ties, boot))) == {"response perplexity", "mean margin"}


def test_every_two_models_are_compared_neighbours_first(boot):
    found = compare_all([WEAK, STRONG, evaluated("FedVA", [1.0] * 12, [1.0] * 12, [1] * 10)], boot)
    assert [(each.first, each.second) for each in found] == [("base", "SFT"), ("SFT", "FedVA"), ("base", "FedVA")]
    assert compare_all([WEAK], boot) == ()


def test_pairing_finds_what_two_separate_intervals_cannot():
    """A tenth of a nat everywhere, under differences of hard and easy examples that are thirty times larger."""
    draw = np.random.default_rng(0)
    hard = draw.gamma(2, 3, size=60)
    boot, tokens = Bootstrap(500, 1), np.ones(60)
    first, second = boot.perplexity(hard, tokens), boot.perplexity(hard - 0.1, tokens)
    assert first.low < second.value < first.high
    assert perplexity_ratio(hard, hard - 0.1 + draw.normal(0, 0.05, 60), tokens, boot).verdict == "better"


def test_false_alarms_come_about_as_seldom_as_they_should():
    """Two models that differ by chance alone: about one verdict in twenty is wrong."""
    draw = np.random.default_rng(1)
    verdicts = [
        perplexity_ratio(draw.normal(size=60), draw.normal(size=60), np.ones(60), Bootstrap(200, trial)).verdict
        for trial in range(300)
    ]
    assert 0.01 < 1 - verdicts.count("no significant difference") / 300 < 0.11
