"""The draw of the server's examples, in proportion to topics."""

import math
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.evaluation.validation import proportional_draw


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcde"), min_size=1, max_size=60), st.data(), st.integers(0, 2**63))
def test_each_topic_has_its_share_of_the_draw(topics, data, seed):
    count = data.draw(st.integers(1, len(topics)))
    drawn = proportional_draw(topics, count, seed)
    assert len(set(drawn)) == count
    assert drawn == sorted(drawn) == proportional_draw(topics, count, seed)
    found, held = Counter(topics[index] for index in drawn), Counter(topics)
    for topic, number in held.items():
        share = count * number / len(topics)
        assert math.floor(share) <= found[topic] <= math.ceil(share)


def test_every_example_is_drawn_about_as_often_as_another():
    topics = ["a"] * 30 + ["b"] * 5 + ["c"]
    drawn = Counter(index for seed in range(3000) for index in proportional_draw(topics, 12, seed))
    assert min(drawn.values()) > 850  # 3000 draws, each with probability 1/3: 1000 +- 26
    assert max(drawn.values()) < 1150
