"""Rows of every accepted set of columns, as they are distributed, and what is wrong with those that are not."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.data.examples import PreferencePair, SftExample, read_examples, write_examples
from fccl.data.formats import SFT_FORMATS, VA_FORMATS, parse_sft, parse_va
from fccl.data.json_files import Unreadable
from fccl.data.sources import open_source
from fccl.errors import BadRow, DataError
from tests.examples import few

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def sft(*rows, **more):
    return parse_sft(enumerate(rows, start=1), "rows.jsonl", **more)


def va(*rows, **more):
    return parse_va(enumerate(rows, start=1), "rows.jsonl", **more)


def human(text):
    return {"from": "human", "value": text}


def gpt(text):
    return {"from": "gpt", "value": text}


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


SFT_ROWS = {
    "own": ({"instruction": "Q", "response": "A", "topic": "t", "answer": "A"}, SftExample("Q", "A", "t", "A")),
    "alpaca": ({"instruction": "Q", "input": "", "output": " A\n"}, SftExample("Q", "A")),
    "alpaca with input": (
        {"instruction": "Q", "input": "more", "output": "A", "text": "…"},
        SftExample("Q\n\nmore", "A"),
    ),
    "alpaca without input": ({"instruction": "Q", "output": "A"}, SftExample("Q", "A")),
    "null input": ({"instruction": "Q", "input": None, "output": "A"}, SftExample("Q", "A")),
    "dolly": (
        {"instruction": "Q", "context": "more", "response": "A", "category": "open_qa"},
        SftExample("Q\n\nmore", "A", "open_qa"),
    ),
    "completion": ({"prompt": "Q", "completion": "A"}, SftExample("Q", "A")),
    "completion of messages": ({"prompt": [user("Q")], "completion": [assistant("A")]}, SftExample("Q", "A")),
    "messages": ({"messages": [user("Q"), assistant("A")]}, SftExample("Q", "A")),
    "conversations": ({"conversations": [human("Q"), gpt("A")], "label": 3}, SftExample("Q", "A", "3")),
}
VA_ROWS = {
    "own": (
        {"instruction": "Q", "preferred": "A", "dispreferred": "B", "flaw": "rude"},
        PreferencePair("Q", "A", "B", flaw="rude"),
    ),
    "binarised texts": ({"prompt": "Q", "chosen": "A", "rejected": "B"}, PreferencePair("Q", "A", "B")),
    "binarised lists": (
        {
            "prompt": "Q",
            "chosen": [user("Q"), assistant("A")],
            "rejected": [user("Q"), assistant("B")],
            "messages": [user("Q"), assistant("A")],
        },
        PreferencePair("Q", "A", "B"),
    ),
    "implicit prompt": (
        {"chosen": [user("Q"), assistant("A")], "rejected": [user("Q"), assistant("B")]},
        PreferencePair("Q", "A", "B"),
    ),
    "prompt of messages": (
        {"prompt": [user("Q")], "chosen": [assistant("A")], "rejected": [assistant("B")]},
        PreferencePair("Q", "A", "B"),
    ),
    "conversations": (
        {"conversations": [human("Q")], "chosen": gpt("A"), "rejected": gpt("B")},
        PreferencePair("Q", "A", "B"),
    ),
    "ultrafeedback": (
        {
            "instruction": "Q",
            "completions": [
                {"response": r, "overall_score": s} for r, s in (("C", 5.0), ("A", 8.5), ("B", 2), ("D", 8.5))
            ],
        },
        PreferencePair("Q", "A", "B"),
    ),
}


@pytest.mark.parametrize("name", SFT_ROWS)
def test_sft_rows(name):
    row, example = SFT_ROWS[name]
    assert sft(row).examples == [example]


@pytest.mark.parametrize("name", VA_ROWS)
def test_va_rows(name):
    row, pair = VA_ROWS[name]
    assert va(row).examples == [pair]


def test_a_conversation_becomes_text_with_roles_and_the_systems_turn_first():
    row = {
        "conversations": [human("Hi"), gpt("Hello"), {"from": "system", "value": "Be kind."}, human("Bye")],
        "chosen": gpt("A"),
        "rejected": gpt("B"),
    }
    assert va(row).examples[0].instruction == "System: Be kind.\n\nUser: Hi\n\nAssistant: Hello\n\nUser: Bye"
    silent = {
        "conversations": [{"from": "system", "value": " "}, human("Hi")],
        "chosen": gpt("A"),
        "rejected": gpt("B"),
    }
    assert va(silent).examples[0].instruction == "Hi"


@given(scores=st.lists(st.integers(1, 10) | st.sampled_from(["7", "N/A", None, float("nan")]), min_size=1, max_size=6))
def test_ultrafeedback_takes_the_best_against_the_worst_or_nothing(scores):
    rated = {
        f"response {index}": float(score)
        for index, score in enumerate(scores)
        if score not in ("N/A", None) and score == score
    }
    row = {
        "instruction": "Q",
        "completions": [
            {"response": f"response {index}", "overall_score": score} for index, score in enumerate(scores)
        ],
    }
    parsed = va(row, {"instruction": "Q", "preferred": "a", "dispreferred": "b"})
    assert parsed.answers["answers_passed_over"] == len(scores) - len(rated)
    if len(set(rated.values())) < 2:
        assert (parsed.nothing_to_learn, len(parsed.examples)) == (1, 1)
        return
    pair = parsed.examples[0]
    assert pair.preferred == next(name for name in rated if rated[name] == max(rated.values()))
    assert pair.dispreferred == next(name for name in rated if rated[name] == min(rated.values()))


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: text.strip() == text)


@settings(deadline=None, max_examples=few(40))
@given(st.lists(st.builds(SftExample, TEXT, TEXT, st.just(""), TEXT | st.just("")), min_size=1))
def test_the_projects_own_shards_come_back_as_they_were(tmp_path_factory, examples):
    file = tmp_path_factory.mktemp("own") / "shard.jsonl"
    write_examples(file, examples)
    assert (
        parse_sft(open_source(str(file), "sft").rows, str(file)).examples == read_examples(file, SftExample) == examples
    )


BAD_SFT = [
    ({"instruction": "Q", "output": 5}, "'output' must be text, found a number"),
    ({"instruction": "  ", "output": "A"}, "'instruction' is empty"),
    ({"instruction": "Q", "input": ["x"], "output": "A"}, "'input' must be text, found a list"),
    ({"instruction": "Q", "output": "\ud800"}, "half a surrogate pair"),
    ({"instruction": "Q"}, r"none of the accepted sets of columns \(found: instruction\)"),
    ({"messages": [user("Q")]}, "must end with the assistant's turn, found User"),
    ({"messages": []}, "must be a list of messages, found nothing in it"),
    ({"messages": "Q"}, "must be a list of messages, found text"),
    ({"messages": [user("Q"), assistant("x"), assistant("A")]}, "must end with the user's turn"),
    ({"messages": [user(" "), assistant("A")]}, "the user's last turn is empty"),
    (
        {"messages": [{"role": "wizard", "content": "Q"}]},
        "role must be one of system, developer, user, .* found 'wizard'",
    ),
    ({"messages": [{"role": "user"}]}, "a message has no 'content'"),
    ({"messages": ["Q"]}, "a message must be an object, found text"),
    (["Q", "A"], "expected an object, found a list"),
    (Unreadable("is not JSON: Expecting value"), "is not JSON"),
]
BAD_VA = [
    ({"prompt": "Q", "chosen": "A", "rejected": 1}, "'rejected' must be a list of messages, found a number"),
    ({"chosen": "A", "rejected": "B"}, "has no prompt: none of prompt, conversations, instruction, question, input"),
    (
        {"chosen": [user("Q"), assistant("A")], "rejected": [user("P"), assistant("B")]},
        "answer different conversations",
    ),
    ({"instruction": "Q", "completions": "x"}, "'completions' must be a list, found text"),
    ({"instruction": "Q", "completions": ["x"]}, "a completion must be an object, found text"),
    ({"instruction": "Q", "completions": [{"response": "A"}]}, "no completion has a 'response' and an 'overall_score'"),
]


@pytest.mark.parametrize(("row", "what"), BAD_SFT)
def test_a_malformed_row_names_file_line_and_what_is_wrong(row, what):
    good = {"instruction": "Q", "output": "A"}
    with pytest.raises(BadRow, match=rf"rows\.jsonl:2: .*{what}") as caught:
        sft(good, row, good)
    assert "--skip-bad-rows" in caught.value.hint
    parsed = sft(good, row, good, skip_bad_rows=True)
    assert (parsed.rows, parsed.bad_rows, len(parsed.examples)) == (3, 1, 2)
    assert "rows.jsonl:2: " in parsed.bad_row_reasons[0]


@pytest.mark.parametrize(("row", "what"), BAD_VA)
def test_a_malformed_pair(row, what):
    with pytest.raises(BadRow, match=what):
        va(row)


KEYS = sorted(
    {column for known in (*SFT_FORMATS, *VA_FORMATS) for column in known.columns}
    | {
        "input",
        "context",
        "system",
        "tools",
        "history",
        "topic",
        "label",
        "weight",
        "train",
        "masked",
        "tool_calls",
        "role",
        "content",
        "from",
        "value",
    }
)
SCALARS = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        1,
        -1,
        0.5,
        10**400,
        float("nan"),
        float("inf"),
        "",
        "nan",
        "Q",
        "Human: Q\n\nAssistant: A",
        "user",
        "assistant",
    ]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=8,
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": VALUES},
    optional={"tool_calls": VALUES},
)


@given(
    known=st.sampled_from([*SFT_FORMATS, *VA_FORMATS]),
    first=st.lists(VALUES | st.lists(MESSAGE, max_size=4), min_size=3, max_size=3),
    more=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4),
)
@settings(deadline=None, max_examples=few(150))
def test_any_row_is_an_example_or_counted_or_an_error_of_ours(known, first, more):
    row = more | dict(zip(known.columns, first, strict=False))
    for parse, good in (
        (sft, {"instruction": "Q", "output": "A"}),
        (va, {"prompt": "Q", "chosen": "A", "rejected": "B"}),
    ):
        parsed = parse(good, row, good, skip_bad_rows=True)
        assert parsed.rows == 3 == len(parsed.examples) + parsed.nothing_to_learn + parsed.marked + parsed.bad_rows
        assert all(example.instruction.strip() for example in parsed.examples)


def test_only_the_first_reasons_are_kept():
    parsed = sft({"instruction": "Q", "output": "A"}, *[{"instruction": "Q", "output": 1}] * 20, skip_bad_rows=True)
    assert (parsed.bad_rows, len(parsed.bad_row_reasons)) == (20, 5)


def test_rows_that_teach_nothing_are_counted_not_refused():
    assert sft({"instruction": "Q", "output": " "}, {"instruction": "Q", "output": "A"}).nothing_to_learn == 1
    parsed = va(
        {"prompt": "Q", "chosen": "A", "rejected": "A "},
        {"prompt": "Q", "chosen": "A", "rejected": ""},
        {"prompt": "Q", "chosen": "A", "rejected": "B"},
    )
    assert (parsed.nothing_to_learn, len(parsed.examples)) == (2, 1)


@pytest.mark.parametrize("skip", [False, True])
def test_unknown_columns_name_those_found_and_those_accepted(skip):
    with pytest.raises(DataError, match="columns question, reply, which is none") as caught:
        sft({"question": "Q", "reply": "A"}, skip_bad_rows=skip)
    assert "{instruction, output}" in caught.value.hint
    assert not isinstance(caught.value, BadRow)


def test_a_misspelt_column_is_named_beside_the_one_that_is_meant():
    with pytest.raises(DataError, match="none of the accepted sets") as caught:
        sft({"instuction": "Q", "reponse": "A"})
    assert caught.value.hint.startswith("did you mean instruction for instuction? did you mean response for reponse? ")
    with pytest.raises(BadRow, match=r"has no 'hospitl' \(found: ") as caught:
        sft({"instruction": "Q", "response": "A", "hospital": "north"}, client_column="hospitl")
    assert caught.value.hint.startswith("CLIENT_COLUMN: did you mean hospital?; or mend")


def test_a_strange_first_row_can_be_skipped_when_others_are_known():
    assert sft({"x": 1}, {"instruction": "Q", "output": "A"}, skip_bad_rows=True).bad_rows == 1


def test_a_file_of_the_other_kind_says_what_is_missing():
    with pytest.raises(DataError, match="need a preferred and a dispreferred one") as caught:
        va({"instruction": "Q", "input": "", "output": "A"})
    assert "VA_DATA=synthetic" in caught.value.hint
    with pytest.raises(DataError, match="preference pairs, and SFT needs") as caught:
        sft(VA_ROWS["conversations"][0])
    assert "VA_DATA" in caught.value.hint


@pytest.mark.parametrize("rows", [[], [{"instruction": "Q", "output": ""}]])
def test_no_examples(rows):
    with pytest.raises(DataError, match="holds no examples"):
        sft(*rows)


def test_the_topic_comes_from_the_named_column_or_from_the_usual_ones():
    row = {"instruction": "Q", "output": "A", "label": 7, "category": "cooking", "source": " flan \n v2 "}
    assert sft(row).examples[0].topic == "cooking"
    assert sft(row, topic_column="label").examples[0].topic == "7"
    assert sft(row, topic_column="source").examples[0].topic == "flan v2"
    assert sft({"instruction": "Q", "output": "A", "topic": ["no", "label"]}).examples[0].topic == ""
    with pytest.raises(BadRow, match="'topic' must be a label, found a list"):
        sft({"instruction": "Q", "output": "A", "topic": ["a"]}, topic_column="topic")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared real data is not beside the project")
def test_real_files():
    alpaca, dpo = SHARED / "alpaca_en_demo.json", SHARED / "dpo_en_demo.json"
    parsed = parse_sft(open_source(str(alpaca), "sft").rows, "alpaca")
    raw = json.loads(alpaca.read_text())
    assert len(parsed.examples) == len(raw) == 999
    assert all(
        example.instruction.startswith(row["instruction"].strip()) and row["input"].strip() in example.instruction
        for example, row in zip(parsed.examples, raw, strict=True)
    )
    pairs = parse_va(open_source(str(dpo), "va").rows, "dpo")
    raw = json.loads(dpo.read_text())
    assert [pair.preferred for pair in pairs.examples] == [row["chosen"]["value"].strip() for row in raw]
    assert all(
        row["conversations"][-1]["value"].strip() in pair.instruction
        for pair, row in zip(pairs.examples, raw, strict=True)
    )
