from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.compare.server_view import from_elsewhere, seen, seen_instructions, specialised
from fccl.compare.values import WHOLE, ServerView
from fccl.data.builtin.dataset import builtin_sft, builtin_va
from fccl.data.examples import PreferencePair, SftExample
from fccl.data.shards import ClientShard

SFT = [SftExample(f"say {number}", f"it is {number}", "abcd"[number % 4]) for number in range(40)]
VA = [PreferencePair(f"say {number}", f"it is {number}", f"no {number}", "abcd"[number % 4]) for number in range(40)]
VIEWS = st.builds(
    ServerView, topics=st.integers(0, 5), examples=st.integers(0, 50), mislabelled=st.sampled_from([0.0, 0.2, 1.0])
)


@given(VIEWS, st.integers(0, 9))
def test_the_server_has_so_many_topics_and_examples_of_its_own(view, seed):
    found = seen(SFT, view, seed)
    of = {one.instruction: one for one in SFT}
    assert len({one.topic for one in found}) <= (view.topics or 4)
    assert len(found) <= (view.examples or 40)
    assert all(one.instruction in of and one.topic == of[one.instruction].topic for one in found)
    wrong = [one for one in found if one.response != of[one.instruction].response]
    count = round(view.mislabelled * len(found))
    assert len(wrong) == (count if count > 1 else 0)
    assert found == seen(SFT, view, seed)


def test_all_of_it_by_default():
    assert seen(SFT, WHOLE, 3) == tuple(SFT)
    assert seen(VA, WHOLE, 3) == tuple(VA)


def test_two_topics_of_four_are_half_of_it_and_a_wrong_pair_has_both_responses_of_another():
    assert Counter(one.topic for one in seen(SFT, ServerView(topics=2), 1)).most_common()[0][1] == 10
    for pair in seen(VA, ServerView(mislabelled=1.0), 1):
        number = pair.preferred.removeprefix("it is ")
        assert pair.dispreferred == f"no {number}"
        assert pair.instruction != f"say {number}"


def test_of_a_topic_that_it_cannot_judge_it_has_nothing():
    assert {one.topic for one in seen(SFT, WHOLE, 1, unknown="b")} == set("acd")


def test_another_source_is_plain_text_of_which_no_client_has_anything():
    found = seen_instructions(SFT, ServerView(elsewhere=True), 1, "")
    assert len(found) == len(SFT)
    asked = {one.instruction for one in builtin_sft()} | {one.instruction for one in builtin_va()}
    assert not asked & {one.instruction for one in found}
    assert found == from_elsewhere(40, 1) != from_elsewhere(40, 2)


SHARDS = tuple(ClientShard(client, tuple(SFT[client::3]), tuple(VA[client::3])) for client in range(3))


@pytest.mark.parametrize("topic", ["a", "d"])
def test_a_specialist_alone_holds_its_topic_and_nothing_is_lost(topic):
    dealt = specialised(SHARDS, topic)
    assert all(topic not in {one.topic for one in (*shard.sft, *shard.va)} for shard in dealt[1:])
    assert Counter(one for shard in dealt for one in shard.sft) == Counter(SFT)
    assert Counter(one for shard in dealt for one in shard.va) == Counter(VA)
    assert [shard.client_id for shard in dealt] == [0, 1, 2]


def test_who_held_nothing_else_keeps_one_example():
    poor = ClientShard(1, tuple(one for one in SFT if one.topic == "a"), tuple(VA))
    _, left = specialised((SHARDS[0], poor), "a")
    assert left.sft == poor.sft[:1]
