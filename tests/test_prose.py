"""Sentences of Markdown pages are found and counted as a reader finds and counts them."""

import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import few
from tests.prose import sentences

PAGE = """\
# A title of five words

The first sentence
goes on. The [second](a.b/c.md#d) one asks `a. B` nothing? It is e.g. short (see Ito et al. 2020). Yes.

- An item. Its second
  sentence:
  1. a nested one
- Another: 3 of 4 → `x = 1. y`

```
No sentence. At all.
```

    y = x. Z

<!-- A mark. No words. -->
| one cell | two. Cells |
|---|---|
| a \\| b | … and c |

> Somebody said. Two
> sentences.
"""


def found(page):
    return [(each.line, each.words, each.text) for each in sentences(page)]


def test_the_sentences_of_a_page_are_found_with_their_lines_and_their_words():
    assert found(PAGE) == [
        (1, 5, "A title of five words"),
        (3, 5, "The first sentence goes on."),
        (4, 6, "The second one asks `a. B` nothing?"),
        (4, 9, "It is e.g. short (see Ito et al. 2020)."),
        (4, 1, "Yes."),
        (6, 2, "An item."),
        (6, 3, "Its second sentence:"),
        (8, 3, "a nested one"),
        (9, 5, "Another: 3 of 4 → `x = 1. y`"),
        (18, 2, "one cell"),
        (18, 1, "two."),
        (18, 1, "Cells"),
        (20, 2, "a | b"),
        (20, 2, "… and c"),
        (22, 2, "Somebody said."),
        (22, 2, "Two sentences."),
    ]


SEEN = {"**bold**": "bold", "[link](to/a.md)": "link", "![a picture](b.png)": "a picture", "`f(x). G`": "`f(x).~G`"}
WORDS = st.sampled_from(["word", "a", "it's", "2.5", "“said”", "e.g.", "x̄", *SEEN])
SAID = st.lists(WORDS, min_size=1, max_size=40)
PARAGRAPHS = st.lists(st.lists(SAID, min_size=1, max_size=4), min_size=1, max_size=4)
FORMS = {"paragraph": ("", ""), "item": ("- ", "  "), "numbered": ("1. ", "   "), "nested": ("  - ", "    ")}
ENDS = {".": ("", "."), "?": ("", "?"), "!": ("", "!"), ".)": ("(", ".)"), "bold": ("**", ".**")}


@given(PARAGRAPHS, st.sampled_from(list(FORMS)), st.integers(20, 120), st.sampled_from(list(ENDS)))
@settings(max_examples=few(200))
def test_however_sentences_are_wrapped_they_are_counted_alike(paragraphs, form, width, end):
    first, rest = FORMS[form]
    before, after = ENDS[end]
    page = "\n\n".join(
        textwrap.fill(
            " ".join(f"{before}The {' '.join(words)} end{after}" for words in each),
            width,
            initial_indent=first,
            subsequent_indent=rest,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for each in paragraphs
    )
    asked = [words for each in paragraphs for words in each]
    seen = [" ".join(["The", *(SEEN.get(word, word) for word in words), "end"]) for words in asked]
    expected = [(f"{before}{each}{after}".replace("**", ""), len(each.split())) for each in seen]
    assert [(text, words) for _, words, text in found(page)] == [
        (text.replace("~", " "), words) for text, words in expected
    ]


@pytest.mark.parametrize("lines", [0, 1, 7])
@pytest.mark.parametrize(
    "over", ["\n", "```\nOne. Two.\n```\n", "# A heading\n", "| a | b. |\n|---|---|\n", "- an item\n\n"]
)
def test_a_sentence_has_the_line_where_it_begins_whatever_stands_over_it(over, lines):
    page = over * lines + "\n" + "word " * 31
    last = list(sentences(page))[-1]
    assert (last.line, last.words) == (page.count("\n") + 1, 31)
