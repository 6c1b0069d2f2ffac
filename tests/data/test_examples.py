import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.data.examples import (
    ROLES,
    PreferencePair,
    SftExample,
    Turn,
    conversation_of,
    prompt_of,
    read_examples,
    write_examples,
)
from fccl.errors import BadRow, DataError

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
may_be = st.one_of(st.just(""), text)
asked = st.lists(st.builds(Turn, st.sampled_from(ROLES), may_be, st.booleans()), max_size=3).map(tuple)
sft = st.builds(SftExample, text, text, topic=may_be, answer=may_be, asked=asked)
pairs = st.builds(PreferencePair, text, text, text, topic=st.just("a"), flaw=may_be, asked=asked)


@given(st.lists(sft, min_size=1, max_size=5))
def test_what_is_written_is_read_again(tmp_path_factory, examples):
    path = tmp_path_factory.mktemp("shard") / "x.jsonl"
    write_examples(path, examples)
    assert read_examples(path, SftExample) == examples


@given(st.lists(pairs, min_size=1, max_size=5))
def test_pairs_too_with_every_separator_that_unicode_has(tmp_path_factory, examples):
    path = tmp_path_factory.mktemp("shard") / "x.jsonl"
    write_examples(path, [*examples, PreferencePair("a\u2028b\x85c\x1cd", "e\rf", "g\nh", topic="a")])
    assert read_examples(path, PreferencePair)[:-1] == examples


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "is not JSON"),
        ("[1]", "expected an object with 'instruction', 'response', found list"),
        ('{"instruction": "a"}', "has no 'response' (found: 'instruction')"),
        ('{"instruction": "a", "response": 3}', "'response' must be text, found int"),
        ('{"instruction": "a", "response": null}', "'response' must be text, found NoneType"),
        ('{"instruction": " ", "response": "b"}', "'instruction' is empty"),
        ('{"instruction": "a", "response": "b", "topic": []}', "'topic' must be text, found list"),
        ('{"instruction": "a", "response": "b", "asked": "c"}', "'asked' must be a list of objects with 'role'"),
        (
            '{"instruction": "a", "response": "b", "asked": [{"role": "x", "content": ""}]}',
            "(system, user, assistant, tool)",
        ),
        ('{"instruction": "a", "response": "b", "asked": [{"role": "user"}]}', "and 'content' (text)"),
        ('{"instruction": "a", "response": "b", "asked": [{"role": [], "content": ""}]}', "'asked' must be"),
        ("", "is not JSON"),
        ("[" * 100_000, "is nested too deeply"),
        ("1" * 5000, "is not JSON"),
        ('{"instruction": "a", "response": "b", "response": "c"}', "names 'response' twice"),
        (b'{"instruction": "\xff"}', "is not UTF-8 (byte 18)"),
    ],
)
def test_a_bad_line_is_named_with_file_and_number(tmp_path, line, what):
    path = tmp_path / "client_0_sft.jsonl"
    first = json.dumps({"instruction": "a", "response": "b"}).encode()
    path.write_bytes(first + b"\n" + (line if isinstance(line, bytes) else line.encode()) + b"\n")
    with pytest.raises(BadRow) as caught:
        read_examples(path, SftExample)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert what in str(caught.value)


def test_an_empty_client_and_a_missing_one_are_clear_errors(tmp_path):
    empty = tmp_path / "client_1_va.jsonl"
    empty.write_text("")
    with pytest.raises(DataError, match="has no examples"):
        read_examples(empty, PreferencePair)
    with pytest.raises(DataError, match="is not there"):
        read_examples(tmp_path / "client_9_va.jsonl", PreferencePair)


def test_the_prompt_is_what_it_is():
    assert prompt_of("Say {this}.") == "### Instruction:\nSay {this}.\n\n### Response:"


def test_a_prompt_is_its_turns_or_one_turn_of_the_user():
    turns = (Turn("system", "Be brief."), Turn("user", "Go"))
    assert conversation_of("Go") == conversation_of(SftExample("Go", "no")) == (Turn("user", "Go"),)
    assert conversation_of(PreferencePair("System: Be brief.\n\nUser: Go", "yes", "no", asked=turns)) == turns
