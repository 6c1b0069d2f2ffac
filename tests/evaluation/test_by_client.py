import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.data.examples import SftExample
from fccl.evaluation.by_client import evaluate_client, topic_weights
from fccl.evaluation.suite import Evaluated, EvaluationSplit
from fccl.model.scoring import PairScores, SftScores

TOPICS = ["birds"] * 8 + ["fruit"] * 16
SPLIT = EvaluationSplit(
    [SftExample("a", "b", topic=topic, answer="b" if index % 2 else "") for index, topic in enumerate(TOPICS)], []
)
BIRDS = np.array([topic == "birds" for topic in TOPICS])


def evaluated(birds, fruit):
    """NLL of one-token responses by topic; birds are exact when they are the easier, and so is fruit."""
    nll = np.where(BIRDS, birds, fruit) + np.arange(24) % 3 * 0.01
    exact = (BIRDS if birds < fruit else ~BIRDS)[1::2].astype(float)
    pairs = PairScores(np.ones(8), np.zeros(8), np.ones(8, dtype=int), np.ones(8, dtype=int))
    return Evaluated("model", None, SPLIT, SftScores(nll, np.ones(24, dtype=int)), pairs, exact, (), 0)


OWN, GLOBAL = evaluated(birds=1.0, fruit=4.0), evaluated(birds=2.0, fruit=1.0)


def mix(shares, boot):
    found = evaluate_client(3, "va", OWN, GLOBAL, shares, boot).mix
    assert found is not None
    return found, {difference.measure: difference for difference in found.differences}


@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=30),
    st.dictionaries(st.sampled_from("abcd"), st.floats(0.01, 9), min_size=1),
)
def test_each_topic_weighs_as_much_as_in_the_clients_data(topics, shares):
    weights = topic_weights(topics, shares)
    for topic in set(topics):
        mine = sum(weight for weight, other in zip(weights, topics, strict=True) if other == topic)
        assert mine == pytest.approx(shares.get(topic, 0) / sum(shares.values()))


def test_the_answer_depends_on_the_clients_topics(boot):
    _, birds = mix({"birds": 1}, boot)
    _, fruit = mix({"fruit": 1}, boot)
    assert birds["response perplexity"].verdict == "worse"  # the global model, for a client of birds alone
    assert fruit["response perplexity"].verdict == "better"
    assert birds["exact answers"].estimate.value == -1
    assert fruit["exact answers"].verdict == "better"


def test_perplexity_is_weighted_by_topic(boot):
    found, differences = mix({"birds": 3, "fruit": 1}, boot)
    noise = 0.01 * np.mean([0, 1, 2])
    assert math.log(found.own_perplexity.value) == pytest.approx(0.75 * 1 + 0.25 * 4 + noise, abs=0.005)
    assert math.log(found.global_perplexity.value) == pytest.approx(0.75 * 2 + 0.25 * 1 + noise, abs=0.005)
    assert differences["response perplexity"].estimate.value == pytest.approx(
        found.global_perplexity.value / found.own_perplexity.value
    )
    assert found.own_exact is not None
    assert found.global_exact is not None
    assert (found.own_exact.value, found.global_exact.value) == (pytest.approx(0.75), pytest.approx(0.25))


def test_topics_that_the_split_lacks_are_told(boot):
    found, _ = mix({"birds": 3, "stars": 1}, boot)
    assert found.covered == pytest.approx(0.75)


@pytest.mark.parametrize("shares", [{}, {"stars": 2.0}, {"birds": 0.0}])
def test_without_a_common_topic_there_is_no_mix(shares, boot):
    found = evaluate_client(3, "sft", OWN, GLOBAL, shares, boot)
    assert found.mix is None
    assert (found.client_id, found.phase, found.perplexity.n) == (3, "sft", 24)


def test_the_whole_split_is_not_weighted(boot):
    found = evaluate_client(3, "va", OWN, GLOBAL, {"birds": 1}, boot)
    assert math.log(found.perplexity.value) == pytest.approx(OWN.sft.nll.mean())
    assert found.exact is not None
    assert found.exact.value == pytest.approx(1 / 3)
    assert (found.preference.right, found.preference.wrong) == (8, 0)
