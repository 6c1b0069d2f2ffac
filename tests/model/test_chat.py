"""Conversations through chat templates, token by token: against TRL's trainers, and against what the text must be."""

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, ByT5Tokenizer

from fccl.data.examples import SftExample, Turn
from fccl.data.formats import parse_sft, parse_va
from fccl.errors import ModelError
from fccl.model.chat import Chat, common_length, end_ids
from fccl.model.encoding import encode_pairs, encode_sft, prompt_ids
from fccl.specs import PLAIN_TEXT, TextForm
from tests.examples import few
from tests.model.chats import CHATML, CONVERSATIONS, MARKED, MARKED_CHATML, QUESTION, UNMARKED, chatting, messages, qwen

LAST, ALL = TextForm(prompt="chat"), TextForm(prompt="chat", learn="all")
LONG = 10_000


@pytest.fixture(scope="module")
def any_model(tiny_model_path):
    """A model for TRL's trainers, which prepare their data and train nothing here."""
    return AutoModelForCausalLM.from_pretrained(tiny_model_path)


def arguments(kind, tmp_path, **more):
    return kind(str(tmp_path), report_to="none", use_cpu=True, bf16=False, max_length=None, **more)


def labels_of_trl(model, tokenizer, rows, tmp_path, **more):
    """The ids and the labels that TRL's SFTTrainer makes of rows; -100 is not learnt."""
    from trl import SFTConfig, SFTTrainer

    trainer = SFTTrainer(
        model,
        args=arguments(SFTConfig, tmp_path, gradient_checkpointing=False, **more),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    return [(row["input_ids"], row["labels"]) for row in trainer.train_dataset]


def labels(row):
    learnt = set(row.places)
    return list(row.ids), [number if place in learnt else -100 for place, number in enumerate(row.ids)]


def examples_of(rows):
    return parse_sft(enumerate(rows), "rows").examples


def learnt_text(tokenizer, row):
    return tokenizer.decode([row.ids[place] for place in row.places])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [*MARKED, "llama"])
def test_every_turn_is_learnt_as_trls_assistant_only_loss_learns_it(kind, any_model, tmp_path):
    """For Llama's own template, which has no marks, TRL takes its variant that has them; ours are prefixes."""
    tokenizer = chatting(kind)
    rows = [{"messages": conversation} for conversation in CONVERSATIONS.values()]
    expected = labels_of_trl(any_model, tokenizer, rows, tmp_path, assistant_only_loss=True)
    found = encode_sft(tokenizer, examples_of(rows), LONG, ALL)
    assert dict(zip(CONVERSATIONS, map(labels, found), strict=True)) == dict(zip(CONVERSATIONS, expected, strict=True))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [*MARKED, *UNMARKED, "llama, dated", "qwen, thinking"])
def test_the_last_turn_is_learnt_as_trls_prompts_and_completions(kind, any_model, tmp_path, monkeypatch):
    tokenizer = chatting(kind)
    rows = [{"prompt": said[:-1], "completion": said[-1:]} for said in CONVERSATIONS.values()]
    more = {"chat_template_kwargs": {"date_string": "26 Jul 2024"}} if kind == "llama, dated" else {}
    expected = labels_of_trl(any_model, tokenizer, [row | more for row in rows], tmp_path)
    found = encode_sft(tokenizer, examples_of(rows), LONG, LAST)
    assert dict(zip(CONVERSATIONS, map(labels, found), strict=True)) == dict(zip(CONVERSATIONS, expected, strict=True))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", UNMARKED)
@pytest.mark.parametrize("text", [LAST, ALL], ids=["last", "all"])
def test_pairs_are_trls_whatever_turns_instructions_learn(kind, text, any_model, tmp_path):
    from trl import DPOConfig, DPOTrainer

    tokenizer, rejected = chatting(kind), messages(("assistant", "Who knows."))
    rows = [{"prompt": said[:-1], "chosen": said[-1:], "rejected": rejected} for said in CONVERSATIONS.values()]
    options = arguments(DPOConfig, tmp_path, gradient_checkpointing=False)
    data = Dataset.from_list(rows)
    trainer = DPOTrainer(any_model, args=options, train_dataset=data, processing_class=tokenizer)
    pairs = encode_pairs(tokenizer, parse_va(enumerate(rows), "rows").examples, LONG, text)
    for (chosen, other), row in zip(pairs, trainer.train_dataset, strict=True):
        assert list(chosen.ids) == row["prompt_ids"] + row["chosen_ids"]
        assert list(other.ids) == row["prompt_ids"] + row["rejected_ids"]
        assert chosen.prompt_length == other.prompt_length == len(row["prompt_ids"])
        assert chosen.learnt is other.learnt is None


LEARNT = {  # of an answer, by the kind of tokenizer
    "llama": "{}<|eot_id|>",
    "qwen": "{}<|im_end|>\n",
}
ENDS = {"llama": "<|eot_id|>", "qwen": "<|im_end|>", "chatml": "<|im_end|>"}
SAID = st.lists(
    st.sampled_from(["hot", "cold", "<|im_end|>", "<|eot_id|>", "</s>", "<|im_start|>assistant\n"]), min_size=1
)
SPOKEN = st.lists(
    st.tuples(SAID.map(" ".join).map(str.strip), SAID.map(" ".join).map(str.strip)), min_size=1, max_size=3
)


@pytest.mark.parametrize("kind", UNMARKED)
def test_the_end_of_each_turn_is_learnt_and_no_header_is(kind):
    tokenizer = chatting(kind)
    for name, said in CONVERSATIONS.items():
        (row,) = encode_sft(tokenizer, examples_of([{"messages": said}]), LONG, ALL)
        answers = [message["content"] for message in said if message["role"] == "assistant"]
        assert learnt_text(tokenizer, row).count(ENDS[kind]) == len(answers), name
        assert "assistant" not in learnt_text(tokenizer, row), name
        assert "start" not in learnt_text(tokenizer, row), name
        assert all(answer.split()[0] in learnt_text(tokenizer, row) for answer in answers if answer), name


@given(SPOKEN)
@settings(max_examples=few(30))
def test_a_message_that_spells_control_tokens_stays_text(spoken):
    """The control tokens of a row are those that the template writes, and the row reads as it was said."""
    said = [turn for question, answer in spoken for turn in (("user", question), ("assistant", answer))]
    (example,) = examples_of([{"messages": messages(*said)}])
    for kind in ("llama", "qwen"):
        tokenizer = chatting(kind)
        chat = Chat(tokenizer)
        (row,) = encode_sft(tokenizer, [example], LONG, ALL)
        rendering = tokenizer.apply_chat_template(messages(*said), tokenize=False)
        assert tokenizer.decode(row.ids) == rendering
        headers = {"llama": 3 * len(said) + 1, "qwen": 2 * (len(said) + 1)}[kind]
        assert sum(number in chat.reader.commands.values() for number in row.ids) == headers
        expected = "".join(LEARNT[kind].format(answer) for _, answer in spoken)
        assert learnt_text(tokenizer, row) == expected


@given(SPOKEN)
@settings(max_examples=few(30))
def test_a_vocabulary_whose_pieces_are_control_tokens_keeps_text_text_too(spoken):
    said = [turn for question, answer in spoken for turn in (("user", question), ("assistant", answer))]
    (example,) = examples_of([{"messages": messages(*said)}])
    tokenizer = chatting("chatml")
    (row,) = encode_sft(tokenizer, [example], LONG, ALL)
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert (row.ids.count(start), row.ids.count(end), row.ids.count(tokenizer.eos_token_id)) == (
        len(said),
        len(said),
        0,
    )
    assert [row.ids[place] for place in row.places].count(end) == len(spoken)


def test_the_beginning_of_text_comes_once():
    tokenizer = chatting("llama")
    (row,) = encode_sft(tokenizer, [SftExample("Go", "no")], LONG, LAST)
    assert tokenizer("Go")["input_ids"][0] == tokenizer.bos_token_id, "the tokenizer would put one there too"
    assert row.ids.count(tokenizer.bos_token_id) == 1
    assert row.ids[0] == tokenizer.bos_token_id


@pytest.mark.parametrize("kind", UNMARKED)
def test_the_prompt_to_generate_from_is_the_one_that_was_trained_on(kind):
    tokenizer = chatting(kind)
    examples = examples_of([{"messages": said} for said in CONVERSATIONS.values()])
    rows = encode_sft(tokenizer, examples, LONG, LAST)
    assert prompt_ids(tokenizer, examples, LAST) == [list(row.ids[: row.prompt_length]) for row in rows]
    assert prompt_ids(tokenizer, ["Go"], LAST) == prompt_ids(tokenizer, [SftExample("Go", "no")], LAST)


def test_a_default_system_turn_is_the_templates_and_an_empty_one_of_the_data_stays_empty():
    tokenizer = chatting("qwen")
    by_default, empty = (
        tokenizer.decode(encode_sft(tokenizer, examples_of([{"messages": CONVERSATIONS[name]}]), LONG, LAST)[0].ids)
        for name in ("one turn", "an empty system turn")
    )
    assert "created by Alibaba" in by_default
    assert empty.startswith("<|im_start|>system\n<|im_end|>\n<|im_start|>user\n")


def test_a_template_that_writes_the_date_writes_the_same_one_on_every_day():
    tokenizer = chatting("llama, dated")
    assert "Today Date: 26 Jul 2024" in tokenizer.decode(prompt_ids(tokenizer, ["Go"], LAST)[0])


def test_only_the_clock_stands_still():
    """The rest is what transformers renders, white space at the template's beginning included."""
    template = "\n  {% if strftime_now is defined %}  {{ strftime_now('%Y-%m-%d, %A') }}\n{% endif %}\n" + CHATML
    tokenizer = qwen(template)
    found = tokenizer.decode(prompt_ids(tokenizer, ["Go"], LAST)[0])
    asked = tokenizer.apply_chat_template(messages(("user", "Go")), tokenize=False, add_generation_prompt=True)
    assert "2024-07-26, Friday" in found
    before, behind = found.split("2024-07-26, Friday")
    assert asked.startswith(before)
    assert asked.endswith(behind)


def test_a_conversation_that_is_cut_learns_what_is_left_of_it():
    tokenizer = chatting("llama")
    (example,) = examples_of([{"messages": CONVERSATIONS["two turns"]}])
    (whole,) = encode_sft(tokenizer, [example], LONG, ALL)
    learnt = set(whole.places)
    for longest in range(8, len(whole.ids) + 1, 7):
        (row,) = encode_sft(tokenizer, [example], longest, ALL)
        first = whole.prompt_length - row.prompt_length
        assert row.ids == whole.ids[first : first + len(row.ids)]
        assert [first + place for place in row.places] == [
            place for place in range(first + 1, first + len(row.ids)) if place in learnt
        ]
        assert row.truncated == (len(row.ids) < len(whole.ids))
        assert len(row.ids) <= longest


@pytest.mark.parametrize("kind", ["llama", "llama, marked", "chatml, marked"])
def test_a_turn_that_its_row_marks_is_context(kind):
    tokenizer = chatting(kind)
    marked = [dict(message) for message in CONVERSATIONS["two turns"]]
    marked[1]["weight"] = 0
    rows = encode_sft(
        tokenizer, examples_of([{"messages": marked}, {"messages": CONVERSATIONS["one turn"]}]), LONG, ALL
    )
    assert "cold" not in learnt_text(tokenizer, rows[0])
    assert "cherry" in learnt_text(tokenizer, rows[0])
    assert "cold" in learnt_text(tokenizer, rows[1])


def test_a_template_that_does_not_keep_prefixes_is_refused_with_its_name():
    """Qwen3's leaves the thoughts out of all answers but the last."""
    tokenizer = chatting("qwen, thinking")
    examples = examples_of([{"messages": CONVERSATIONS["two turns"]}])
    assert encode_sft(tokenizer, examples, LONG, LAST)[0].ids
    with pytest.raises(ModelError, match="the chat template of a-model does not keep prefixes") as caught:
        encode_sft(tokenizer, examples, LONG, ALL)
    assert "PROMPT_FORMAT=plain" in caught.value.hint
    with pytest.raises(ModelError, match="does not keep prefixes"):
        Chat(tokenizer, "all").require_usable()


def test_a_prompt_that_the_whole_does_not_begin_with_is_refused():
    tokenizer = qwen(
        CHATML.replace("<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>\n{% endif %}")
    )
    with pytest.raises(ModelError, match="the chat template of a-model does not keep prefixes"):
        encode_sft(tokenizer, [SftExample("Go", "no")], LONG, LAST)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('System role not supported') }}", "System role not supported"),
        ("{% for message in messages %}{{ message.nothing.at.all }}{% endfor %}", "no attribute 'nothing'"),
        ("{% for message in messages %}", "Unexpected end of template"),
    ],
)
def test_a_template_that_cannot_be_rendered_is_one_line_with_its_name_and_the_turns(template, said):
    with pytest.raises(ModelError, match=said) as caught:
        prompt_ids(qwen(template), [SftExample("Go", "no", asked=(Turn("system", "x"), Turn("user", "Go")))], LAST)
    assert str(caught.value).startswith("the chat template of a-model cannot be rendered for the turns system, user: ")
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_tokenizers_without_a_template_or_without_places_are_one_line():
    with pytest.raises(ModelError, match="PROMPT_FORMAT=chat: a-model has no chat template"):
        prompt_ids(qwen(None), ["Go"], LAST)
    with pytest.raises(ModelError, match="a-model has several chat templates and no default one"):
        prompt_ids(qwen({"tool_use": CHATML, "rag": CHATML}), ["Go"], LAST)
    slow = ByT5Tokenizer(name_or_path="a-model")
    slow.chat_template = CHATML
    with pytest.raises(ModelError, match="the tokenizer of a-model does not say where its tokens stand"):
        prompt_ids(slow, ["Go"], LAST)


def test_answers_that_are_not_marked_once_each_cannot_be_left_out():
    parts = "{% generation %}{{ ' ' }}{% endgeneration %}{% generation %}{{"
    twice = MARKED_CHATML.replace("{% generation %}{{", parts)
    said = [dict(message) for message in CONVERSATIONS["two turns"]]
    assert encode_sft(qwen(twice), examples_of([{"messages": said}]), LONG, ALL)[0].learnt
    said[1]["train"] = False
    with pytest.raises(ModelError, match="does not mark each answer once"):
        encode_sft(qwen(twice), examples_of([{"messages": said}]), LONG, ALL)


def test_a_response_ends_where_the_template_ends_a_turn():
    tokenizer = chatting("chatml")
    assert end_ids(tokenizer, PLAIN_TEXT) == (tokenizer.eos_token_id,)
    assert end_ids(tokenizer, LAST) == (tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>"))
    assert end_ids(chatting("llama"), LAST) == (chatting("llama").eos_token_id,)
    assert end_ids(qwen("{% for message in messages %}{{ message.content }}{% endfor %}"), LAST) == (
        chatting("qwen").eos_token_id,
    )


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
@settings(max_examples=few(50))
def test_the_common_length_is_the_longest_shared_beginning(one, other):
    length = common_length(one, other)
    assert one[:length] == other[:length]
    assert one[: length + 1] != other[: length + 1] or length == min(len(one), len(other))


def test_the_question_is_what_is_asked():
    assert QUESTION[1] in chatting("qwen").decode(prompt_ids(chatting("qwen"), [QUESTION[1]], LAST)[0])
