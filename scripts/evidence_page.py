"""Puts the figures of comparisons into docs/evidence.md and docs/rivals.md: between their marks, and nowhere else.

    python scripts/evidence_page.py set=FOLDER quick=FOLDER weights=FOLDER pretrained=FOLDER

Each folder is that of a finished `fccl compare`, or of one that `--tables-only` has summed up. A part that is not named
stays as it is. `make evidence-page` calls it.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fccl.display.tables import Table  # noqa: E402
from fccl.errors import DataError, FcclError  # noqa: E402
from fccl.paths import ComparePaths  # noqa: E402
from fccl.records.comparison import Comparison  # noqa: E402
from fccl.storage.reading import read_value  # noqa: E402
from fccl.view.agreement import agreement_tables, effective_tables  # noqa: E402
from fccl.view.claims import claim_lines, claim_table, wins_table  # noqa: E402
from fccl.view.comparison_tables import lead, matrix, pair_tables  # noqa: E402
from fccl.view.markdown import markdown_table, quoted  # noqa: E402

DOCS = ROOT / "docs"
END = "<!-- end -->"
WIDTH = 120
Lines = Iterable[str]


def claim(made: Comparison) -> Lines:
    """The claim of the primary set; where it has too few seeds for a verdict, those that are there."""
    if not made.pairs:
        there = f"Seeds finished so far, in whole or in part: {', '.join(map(str, made.seeds))}."
        yield from prose(f"**Awaits its run.** {there} No claim rests on them.")
        return
    for line in claim_lines(made):
        yield from textwrap.wrap(f"- {quoted(line)}", WIDTH, subsequent_indent="  ")
    yield from ("", *shown(claim_table(made)))


def primary(made: Comparison) -> Lines:
    """Its tables, and what was not run of it."""
    yield from said(made)
    for table in (*pair_tables(made), matrix(made)):
        yield from ("", *prose(f"*{quoted(table.title)}.* {quoted(table.note)}"), "", *shown(table))
    yield from ("", *(f"- Not run: {quoted(line)}" for line in made.not_run)) if made.not_run else ()


def beside(made: Comparison) -> Lines:
    """All methods in all scenarios."""
    yield from ("", *said(made), "", *prose(quoted(matrix(made).note)), "", *shown(matrix(made)))


def weights(made: Comparison) -> Lines:
    """Effective clients, and agreement with exact Shapley values."""
    yield from said(made)
    for table in (*effective_tables(made), *agreement_tables(made)):
        yield from ("", *prose(f"*{quoted(table.title)}.* {quoted(table.note)}"), "", *shown(table))


def wins(made: Comparison) -> Lines:
    """Where each method wins."""
    table = wins_table(made)
    yield from (*prose(quoted(table.note)), "", *shown(table))


@dataclass(frozen=True)
class Part:
    """One stretch of a page between two marks, made from one comparison."""

    page: str
    mark: str
    of: str  # the argument that names the comparison's folder
    lines: Callable[[Comparison], Lines]

    @property
    def begin(self) -> str:
        """The line before the figures."""
        return f"<!-- {self.mark}: made by `make evidence-page` -->"

    def put(self, text: str, made: Comparison) -> str:
        """The page with these figures in their place. Raises `DataError` where the marks are not there."""
        head, begin, rest = text.partition(self.begin)
        _, end, tail = rest.partition(END)
        if not (begin and end):
            raise DataError(f"docs/{self.page} has no {self.begin} with {END} after it", hint="put the marks back")
        return f"{head}{begin}\n" + "\n".join(self.lines(made)).strip("\n") + f"\n{end}{tail}"


PARTS = (
    Part("evidence.md", "claim", "set", claim),
    Part("evidence.md", "set", "set", primary),
    Part("evidence.md", "quick", "quick", beside),
    Part("evidence.md", "weights", "weights", weights),
    Part("evidence.md", "pretrained", "pretrained", beside),
    Part("rivals.md", "wins", "set", wins),
)


def said(made: Comparison) -> list[str]:
    """The lines on what was compared, as prose."""
    return [line for text in lead(made) for line in prose(quoted(text))]


def prose(text: str) -> list[str]:
    """Text in lines that are short enough."""
    return textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def shown(table: Table) -> list[str]:
    """A table without its title and its note."""
    return markdown_table(table.without_empty_columns()).splitlines()


def pages(found: Mapping[str, Comparison], docs: Path = DOCS) -> dict[Path, str]:
    """Every page as it is with these figures."""
    texts: dict[Path, str] = {}
    for part in PARTS:
        if part.of in found:
            path = docs / part.page
            texts[path] = part.put(texts.get(path) or path.read_text("utf-8"), found[part.of])
    return texts


def read(argument: str) -> tuple[str, Comparison]:
    """A part's name and its comparison, from `name=folder`. Raises `DataError`."""
    name, _, folder = argument.partition("=")
    if name not in {part.of for part in PARTS}:
        raise DataError(
            f"{argument}: no part is called {name}", hint="set=FOLDER, quick=FOLDER, weights=FOLDER, pretrained=FOLDER"
        )
    path = ComparePaths(Path(folder)).results
    made = read_value(path, Comparison)
    if made is None:
        raise DataError(
            f"{path} is not there, or is no comparison", hint="fccl compare writes it, with --tables-only too"
        )
    return name, made


def main() -> int:
    """Write the pages. Returns 0, or 2 after one line on what is wrong."""
    try:
        for path, text in pages(dict(map(read, sys.argv[1:]))).items():
            path.write_text(text, "utf-8")
            print(path.relative_to(ROOT))
    except FcclError as error:
        print(f"error: {error}\n  hint: {error.hint}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
