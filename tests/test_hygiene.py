"""Rules of every file: no test reaches into a private member of a module that it does not test; no file is longer than
400 lines, no function of the package longer than 40; no sentence of a public docstring has more than 30 words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.source_facts import facts

ROOT = Path(__file__).resolve().parent.parent
TESTS = sorted((ROOT / "tests").rglob("*.py"))
MODULES = sorted((ROOT / "fccl").rglob("*.py"))
FILES = [
    *TESTS,
    *MODULES,
    *(path for folder in ("benchmarks", "scripts", "examples") for path in (ROOT / folder).glob("**/*.py")),
]
MOST_WORDS = 30  # of a sentence
_NO_PROSE = re.compile(r"^(>>>|\.\.\.|\||- | {4})|\S {3,}\S")  # examples, lists, formulas, tables


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def mirrored(test: Path) -> Path | None:
    """The module that a test file tests: `tests/model/test_card.py` mirrors `fccl/model/card.py`, as does
    `tests/model/test_card_of_an_adapter.py`.
    """
    folder = ROOT / "fccl" / test.relative_to(ROOT / "tests").parent
    words = test.stem.removeprefix("test_").split("_")
    candidates = (folder / f"{'_'.join(words[:length])}.py" for length in range(len(words), 0, -1))
    return next((path for path in candidates if path.exists()), None)


@cache
def private_members() -> frozenset[str]:
    """Those of all modules of the package."""
    return frozenset().union(*(facts(path).defined for path in MODULES))


def strangers(test: Path) -> list[str]:
    """The private members of other modules of the package that a test names."""
    module = mirrored(test)
    known = facts(test).defined | (facts(module).defined if module else frozenset())
    ours = private_members() - known
    return [f"{name_of(test)}:{line} {name}" for line, name in facts(test).reached if name in ours]


def test_no_test_reaches_into_a_private_member_of_a_module_that_it_does_not_test() -> None:
    found = [line for test in TESTS for line in strangers(test)]
    assert not found, "\n".join(found)


def test_no_file_is_longer_than_400_lines() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in FILES}
    found = [f"{name} {lines}" for name, lines in lengths.items() if lines > 400]
    assert not found, "\n".join(found)


def test_no_function_is_longer_than_40_lines() -> None:
    found = [
        f"{name_of(path)}:{line} {name} {lines}"
        for path in MODULES
        for line, name, lines in facts(path).lengths
        if lines > 40
    ]
    assert not found, "\n".join(found)


def sentences(docstring: str) -> Iterator[str]:
    """The sentences of a docstring's prose, without examples, formulas and tables."""
    for paragraph in re.split(r"\n\s*\n", docstring):
        if not any(map(_NO_PROSE.search, paragraph.splitlines())):
            yield from re.split(r"(?<=[.!?])\s+", " ".join(paragraph.split()))


def words(sentence: str) -> int:
    """The number of words, names of the code and signs of a formula not among them."""
    return sum(re.search(r"[A-Za-z]", word) is not None for word in re.sub(r"`[^`]*`", "", sentence).split())


def test_no_sentence_of_a_public_docstring_has_more_than_30_words() -> None:
    found = [
        f"{name_of(path)} {words(sentence)}: {sentence}"
        for path in MODULES
        for docstring in facts(path).docstrings
        for sentence in sentences(docstring)
        if words(sentence) > MOST_WORDS
    ]
    assert not found, "\n".join(found)


def test_no_docstring_of_the_package_begins_with_a_question() -> None:
    """A docstring names the thing first, then says it."""
    asking = [
        f"{name_of(path)}: {said.splitlines()[0]}"
        for path in MODULES
        for said in facts(path).all_docstrings
        if re.match(r"(What|Which|Who|Whoever|How)\b", said)
    ]
    assert not asking, "\n".join(asking)


def test_sentences_are_counted_as_a_reader_counts_them() -> None:
    docstring = "Reads `a_name` whole. It is\nlong.\n\n    x = 1\n\nA table\none   two\n\n>>> f()\n3"
    assert [(one, words(one)) for one in sentences(docstring)] == [("Reads `a_name` whole.", 2), ("It is long.", 3)]
