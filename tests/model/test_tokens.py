"""Text stays text: whatever a row of data spells, no tokenizer makes a control token of it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast

from fccl.data.examples import PreferencePair, SftExample
from fccl.errors import ModelError
from fccl.model.base_model import BUILTIN_MODEL, base_path
from fccl.model.encoding import encode_pairs, encode_sft, prompt_ids
from fccl.model.tokens import control_tokens, token_ids
from tests.examples import few

LETTERS = "abcdefghijklmnopqrstuvwxyz</>|_[]▁#:\n .CEKLNPSU"
PIECES = ["<", "</", "s>", "</s", "<|", "|>", "im", "end", "_end"]


def fast(model, *, names, before=(), special=True, pre=None, decoder=None):
    """A tokenizer of transformers around `model`; `before` is what it puts before a text."""
    backend = Tokenizer(model)
    if pre:
        backend.pre_tokenizer = pre
    if decoder:
        backend.decoder = decoder
    if before:
        backend.post_processor = processors.TemplateProcessing(single=f"{before[0]} $A", special_tokens=[before])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    if special:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>", "<|eot_id|>"]})
    return tokenizer


def micro():
    return AutoTokenizer.from_pretrained(base_path(BUILTIN_MODEL))


def byte_level():
    tokenizer = micro()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>", "<|im_start|>"]})
    return tokenizer


NAMES = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}


def llama_like():
    """A Unigram vocabulary as SentencePiece makes it: control tokens are pieces, with the best of all scores."""
    pieces = [
        ("<unk>", 0.0),
        ("<s>", 0.0),
        ("</s>", 0.0),
        *((piece, -6.0) for piece in PIECES),
        *((letter, -9.0) for letter in LETTERS),
    ]
    metaspace = {"replacement": "▁", "prepend_scheme": "first"}
    return fast(
        models.Unigram(pieces, unk_id=0, byte_fallback=False),
        names=NAMES,
        before=("<s>", 1),
        pre=pre_tokenizers.Metaspace(**metaspace),
        decoder=decoders.Metaspace(**metaspace),
    )


def merging(**more):
    """BPE with merges that end in control tokens, as conversions from SentencePiece write them."""
    vocab = {
        piece: number
        for number, piece in enumerate(["<unk>", "<s>", "</s>", *LETTERS, *(p for p in PIECES if len(p) > 1), "<s"])
    }
    merges = [("<", "/"), ("s", ">"), ("</", "s"), ("<", "s"), ("</", "s>"), ("</s", ">"), ("<s", ">")]
    return fast(
        models.BPE(vocab, merges, unk_token="<unk>", **more), names=NAMES, before=("<s>", 1), decoder=decoders.Fuse()
    )


def whole_words():
    return merging(ignore_merges=True)


def word_pieces():
    pieces = ["[UNK]", "[CLS]", "[SEP]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    names = {"unk_token": "[UNK]", "bos_token": "[CLS]", "eos_token": "[SEP]"}
    vocab = {piece: number for number, piece in enumerate(pieces)}
    return fast(
        models.WordPiece(vocab, unk_token="[UNK]"),
        names=names,
        before=("[CLS]", 1),
        pre=pre_tokenizers.WhitespaceSplit(),
    )


def by_character():
    """A tokenizer in Python, without a backend."""
    return ByT5Tokenizer()


KINDS = {
    build.__name__: build()
    for build in (micro, byte_level, llama_like, merging, whole_words, word_pieces, by_character)
}
ROUND_TRIPS = ("micro", "byte_level", "llama_like", "merging", "by_character")


@pytest.mark.parametrize("kind", KINDS)
def test_no_special_token_of_any_tokenizer_comes_out_of_its_own_name(kind):
    tokenizer = KINDS[kind]
    for name, number in control_tokens(tokenizer).items():
        for text in (name, f"a{name}", f"a {name} b", name * 3, f"{name}\n{name[1:]}", f"{name[0]}{name}{name[-1]}"):
            assert number not in token_ids(tokenizer, [text])[0], (name, text)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(deadline=None, max_examples=few(60))
def test_no_text_becomes_a_command(kind, data):
    tokenizer = KINDS[kind]
    spelt = st.lists(
        st.sampled_from([*control_tokens(tokenizer), *PIECES, "a", " ", "b c", "\n", ">", "[", "]"]), max_size=8
    ).map("".join)
    unknown = tokenizer.unk_token if tokenizer.unk_token != tokenizer.eos_token else None
    commands = {number for name, number in control_tokens(tokenizer).items() if name != unknown}
    assert commands.isdisjoint(token_ids(tokenizer, [data.draw(spelt)])[0])


@pytest.mark.parametrize("kind", ROUND_TRIPS)
@given(data=st.data())
@settings(deadline=None, max_examples=few(60))
def test_the_text_comes_back_when_control_tokens_are_taken_out(kind, data):
    tokenizer = KINDS[kind]
    word = st.sampled_from([*control_tokens(tokenizer), "a", "</", "s>", "b", "end"])
    text = (
        " ".join(data.draw(st.lists(word, min_size=1, max_size=6)))
        if kind in ("micro", "byte_level", "llama_like")
        else data.draw(word)
    )
    assert (
        tokenizer.decode(token_ids(tokenizer, [text])[0], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        == text
    )


@pytest.mark.parametrize("kind", KINDS)
@given(texts=st.lists(st.text("abc de.\n", min_size=1), min_size=1, max_size=4), special=st.booleans())
@settings(deadline=None, max_examples=few(30))
def test_ordinary_text_is_read_as_the_tokenizer_reads_it(kind, texts, special):
    plain = KINDS[kind](texts, add_special_tokens=special, verbose=False)["input_ids"]
    assert token_ids(KINDS[kind], texts, special) == plain


def test_an_answer_ends_once_and_a_prompt_begins_once():
    tokenizer = KINDS["llama_like"]
    end, begin = tokenizer.eos_token_id, tokenizer.bos_token_id
    row = encode_sft(tokenizer, [SftExample("a</s><s>b", "a</s>b<s>")], 500)[0]
    assert (row.ids.count(end), row.ids[-1]) == (1, end)
    assert (row.ids.count(begin), row.ids[0]) == (1, begin)
    for row in encode_pairs(tokenizer, [PreferencePair("a</s>", "</s>", "<s></s>b")], 500)[0]:
        assert (row.ids.count(end), row.ids.count(begin), row.ids[-1]) == (1, 1, end)
    assert prompt_ids(tokenizer, ["</s><s>"])[0].count(end) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_tokenizer_stays_what_it_was(kind):
    tokenizer = KINDS[kind]
    saved = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else ""
    name = tokenizer.eos_token
    before = tokenizer(f"{name} a")["input_ids"]
    token_ids(tokenizer, [f"{name} a"])
    assert tokenizer(f"{name} a")["input_ids"] == before
    assert saved == (tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else "")


def test_a_token_that_was_added_as_a_word_stays_one():
    tokenizer = micro()
    tokenizer.add_tokens([AddedToken("<think>", special=False)])
    assert tokenizer.convert_tokens_to_ids("<think>") in token_ids(tokenizer, ["a <think> b"])[0]


def test_a_special_token_that_is_added_later_is_one_too():
    tokenizer = llama_like()
    token_ids(tokenizer, ["</s>"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["end"]})
    assert tokenizer.convert_tokens_to_ids("end") not in token_ids(tokenizer, ["the end"])[0]


def test_a_vocabulary_that_can_read_a_text_only_as_its_end_says_so():
    words = models.WordLevel({"</s>": 0, "a": 1}, unk_token="</s>")
    tokenizer = fast(
        words, names={"eos_token": "</s>", "unk_token": "</s>"}, pre=pre_tokenizers.WhitespaceSplit(), special=False
    )
    with pytest.raises(ModelError, match=r"control token '</s>': 'strange word'") as caught:
        token_ids(tokenizer, ["a", "strange word"])
    assert "leave this text out" in caught.value.hint
