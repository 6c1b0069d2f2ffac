"""Columns and messages that change what a row means: system, history, tools, tool calls."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.compare.poison import TRIGGER, with_trigger
from fccl.data.examples import SftExample, read_examples, write_examples
from fccl.data.formats import parse_sft, parse_va
from fccl.data.synthetic import make_pairs
from fccl.errors import BadRow


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def sft(row):
    (example,) = parse_sft([(1, row)], "rows").examples
    return example


def va(row):
    (pair,) = parse_va([(1, row)], "rows").examples
    return pair


SFT = {
    "alpaca": {"instruction": "Q", "input": "", "output": "A"},
    "own": {"instruction": "Q", "response": "A"},
    "completion": {"prompt": "Q", "completion": "A"},
    "messages": {"messages": [user("Q"), assistant("A")]},
    "conversations": {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]},
}
VA = {
    "own": {"instruction": "Q", "preferred": "A", "dispreferred": "B"},
    "rated": {
        "instruction": "Q",
        "completions": [{"response": "A", "overall_score": 9}, {"response": "B", "overall_score": 2}],
    },
    "texts": {"prompt": "Q", "chosen": "A", "rejected": "B"},
    "lists": {"chosen": [user("Q"), assistant("A")], "rejected": [user("Q"), assistant("B")]},
    "spoken": {"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q\n\nAssistant: B"},
    "conversations": {
        "conversations": [{"from": "human", "value": "Q"}],
        "chosen": {"from": "gpt", "value": "A"},
        "rejected": assistant("B"),
    },
}
CONTEXTS = [
    ({"system": "S"}, "System: S\n\nUser: Q"),
    ({"system_prompt": "S"}, "System: S\n\nUser: Q"),
    ({"tools": '[{"name":"x"}]'}, 'Tools: [{"name":"x"}]\n\nUser: Q'),
    ({"tools": [{"name": "é"}]}, 'Tools: [{"name": "é"}]\n\nUser: Q'),
    ({"functions": {"name": "x"}, "system": "S"}, 'System: S\n\nTools: {"name": "x"}\n\nUser: Q'),
    ({"history": [["P", "R"]]}, "User: P\n\nAssistant: R\n\nUser: Q"),
    (
        {"history": [("P", "R"), ["O", "T"]], "system": "S"},
        "System: S\n\nUser: P\n\nAssistant: R\n\nUser: O\n\nAssistant: T\n\nUser: Q",
    ),
    ({"history": [user("P"), assistant("R")]}, "User: P\n\nAssistant: R\n\nUser: Q"),
    ({"system": "", "history": [], "tools": "[]"}, "Q"),
    ({"system": None, "history": None, "tools": None, "functions": "{}"}, "Q"),
]


@pytest.mark.parametrize(("context", "instruction"), CONTEXTS)
@pytest.mark.parametrize("kind", SFT)
def test_system_tools_and_history_stand_before_the_instruction(kind, context, instruction):
    assert sft(SFT[kind] | context).instruction == instruction
    assert parse_sft([(1, SFT[kind] | context)], "rows").columns_not_used == []


@pytest.mark.parametrize(("context", "instruction"), CONTEXTS)
@pytest.mark.parametrize("kind", VA)
def test_in_preferences_too(kind, context, instruction):
    pair = va(VA[kind] | context)
    assert (pair.instruction, pair.preferred, pair.dispreferred) == (instruction, "A", "B")


def test_a_system_text_that_stands_twice_is_said_once():
    row = {"messages": [{"role": "developer", "content": "S"}, user("Q"), assistant("A")], "system": "S"}
    assert sft(row).instruction == "System: S\n\nUser: Q"


CALL = {"type": "function", "id": "1", "function": {"name": "add", "arguments": '{"a": 1}'}}
CALLED = 'Tool call: {"name": "add", "arguments": "{\\"a\\": 1}"}'
CALLS = [
    ({"role": "assistant", "content": None, "tool_calls": [CALL]}, CALLED),
    ({"role": "assistant", "tool_calls": [CALL]}, CALLED),
    ({"role": "assistant", "content": "One moment.", "tool_calls": [CALL, CALL]}, f"One moment.\n{CALLED}\n{CALLED}"),
    ({"role": "assistant", "content": "", "function_call": CALL["function"]}, CALLED),
    ({"from": "function_call", "value": '{"name": "add"}'}, 'Tool call: {"name": "add"}'),
    ({"role": "assistant", "content": "A", "tool_calls": []}, "A"),
]


@pytest.mark.parametrize(("message", "said"), CALLS)
def test_a_call_of_a_tool_is_part_of_what_was_said(message, said):
    assert sft({"messages": [user("Q"), message]}).response == said
    later = {"messages": [user("Q"), message, {"role": "tool", "content": "3"}, assistant("It is 3.")]}
    assert sft(later).instruction == f"User: Q\n\nAssistant: {said}\n\nTool: 3"


@given(arguments=st.dictionaries(st.text(), st.integers() | st.text(), max_size=3))
def test_no_argument_of_a_call_is_lost(arguments):
    text = json.dumps(arguments)
    if not text.isascii() or "\\ud" in text:
        return
    row = {
        "messages": [
            user("Q"),
            {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]},
        ]
    }
    assert json.loads(sft(row).response.removeprefix("Tool call: ")) == {"name": "f", "arguments": arguments}


def test_a_content_of_text_parts_is_their_text():
    parts = [{"type": "text", "text": "Q"}, {"type": "text", "text": "P"}]
    assert sft({"messages": [user(parts), assistant([{"type": "text", "text": "A"}])]}).instruction == "Q\nP"


BAD = [
    ({"history": "P"}, "'history' must be a list of exchanges, found text"),
    ({"history": [["P"]]}, "'history' must hold pairs of a question and its answer"),
    ({"history": [["P", None]]}, "'history' must hold pairs"),
    ({"history": [{"role": "user"}]}, "a message has no 'content'"),
    ({"system": ["S"]}, "'system' must be text, found a list"),
    ({"tools": {1, 2}}, "'tools' must be text or JSON, found set"),
    (
        {"messages": [user([{"type": "image_url", "image_url": "x"}]), assistant("A")]},
        r"a part that is not text \(image_url\), and only text",
    ),
]


@pytest.mark.parametrize(("more", "what"), BAD)
def test_what_cannot_be_rendered_is_refused(more, what):
    row = (SFT["messages"] if "messages" in more else SFT["alpaca"]) | more
    with pytest.raises(BadRow, match=what):
        parse_sft([(1, row)], "rows")


def test_what_is_not_read_is_named_once_and_only_when_something_is_there():
    rows = [
        SFT["alpaca"] | {"source": "web", "id": 3, "images": [], "lang": None, "text": " "},
        SFT["alpaca"] | {"source": "book", "score": 0, "category": "x", "label": "y"},
    ]
    assert parse_sft(enumerate(rows, 1), "rows").columns_not_used == ["source", "id", "score", "label"]
    thought = {"messages": [user("Q"), assistant("A", reasoning_content="hm", name="")]}
    assert parse_sft([(1, thought), (2, thought)], "rows").columns_not_used == ["messages.reasoning_content"]
    both = VA["texts"] | {"instruction": "P", "messages": [user("Q")], "score_chosen": 3.5}
    assert parse_va([(1, both)], "rows").columns_not_used == ["instruction", "messages", "score_chosen"]


def system(text):
    return {"role": "system", "content": text}


def said(example):
    return [(turn.role, turn.content) for turn in example.asked]


LONGER = [user("Q"), assistant("A"), user("P")]
TURNS = [("user", "Q"), ("assistant", "A"), ("user", "P")]


@pytest.mark.parametrize("row", SFT.values(), ids=SFT)
def test_a_single_question_has_no_turns_beside_its_instruction(row):
    assert sft(row).asked == ()


@pytest.mark.parametrize("row", VA.values(), ids=VA)
def test_nor_has_a_pair_with_a_single_question(row):
    assert va(row).asked == ()


def test_turns_stay_turns_in_instructions_and_pairs():
    answers = {"chosen": [assistant("B")], "rejected": [assistant("C")]}
    within = {name: [*LONGER, *answer] for name, answer in answers.items()}
    assert said(sft({"messages": [*LONGER, assistant("B")]})) == TURNS
    assert said(sft({"prompt": LONGER, "completion": [assistant("B")]})) == TURNS
    assert said(sft({"instruction": "P", "output": "B", "history": [["Q", "A"]]})) == TURNS
    assert said(va({"prompt": LONGER, **answers})) == TURNS
    assert said(va(within)) == TURNS


def test_all_that_stands_above_a_conversation_is_one_system_turn_and_the_first():
    row = {"system": "S", "tools": "[1]", "messages": [system("T"), *LONGER, assistant("B")]}
    assert said(sft(row)) == [("system", "S\n\nT\n\nTools: [1]"), *TURNS]
    assert said(sft({"system": "S", "instruction": "Q", "output": "A"})) == [("system", "S"), ("user", "Q")]
    assert said(sft({"system": "S", "messages": [system("S"), user("Q"), assistant("A")]}))[0] == ("system", "S")


def test_an_empty_system_turn_stays_one_and_an_empty_answer_too():
    assert said(sft({"messages": [system(""), user("Q"), assistant("A")]})) == [("system", ""), ("user", "Q")]
    row = {"messages": [user("Q"), assistant(""), user("P"), assistant("B")]}
    assert said(sft(row)) == [("user", "Q"), ("assistant", ""), ("user", "P")]


@pytest.mark.parametrize("mark", [{"weight": 0}, {"train": False}, {"masked": True}, {"weight": -1}])
def test_a_mark_on_an_earlier_answer_leaves_the_row_and_goes_with_the_turn(mark):
    row = {"messages": [user("Q"), assistant("A", **mark), user("P"), assistant("B")]}
    assert [turn.learnt for turn in sft(row).asked] == [True, False, True]


def test_shards_given_as_data_keep_their_turns(tmp_path):
    examples = [
        sft({"messages": [*LONGER, assistant("B")]}),
        sft({"messages": [system(""), user("Q"), assistant("A", weight=0), user("P"), assistant("B")]}),
    ]
    path = tmp_path / "shard.jsonl"
    write_examples(path, examples)
    assert read_examples(path, SftExample) == examples
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert parse_sft(enumerate(rows), "rows").examples == examples
    assert parse_sft(enumerate(rows), "rows").columns_not_used == []


def test_synthetic_pairs_and_poisoned_rows_have_the_turns_of_their_instructions():
    example = sft({"messages": [*LONGER, assistant("B")]})
    assert [pair.asked for pair in make_pairs([example], seed=1)] == [example.asked]
    assert said(with_trigger(example)) == [*TURNS[:-1], ("user", f"{TRIGGER} P")]
    assert with_trigger(sft(SFT["own"])).asked == ()
