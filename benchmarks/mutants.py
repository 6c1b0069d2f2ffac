"""How many one-line mutations of the arithmetic the tests catch, and which survive.

    python benchmarks/mutants.py --count 40        (make mutants)

A mutation changes one operator, comparison, constant, condition, returned value or statement in aggregation,
contribution, training or evaluation. The tests that mirror the mutated module run against a copy of the checkout, so
the checkout never changes. Verdicts are kept in `--out` line by line: the same command goes on where it was stopped,
and judges a mutation again only when its module has changed. The sample follows from `--seed`.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("aggregation", "contribution", "training", "evaluation")
COPIED = ("fccl", "tests", "pyproject.toml", "scripts", "benchmarks", "docs", "README.md")
OPERATORS = {ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*")}
OPERATORS |= {ast.FloorDiv: ("//", "*"), ast.Mod: ("%", "*"), ast.Pow: ("**", "*"), ast.MatMult: ("@", "*")}
COMPARISONS = {ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">")}
COMPARISONS |= {ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not"), ast.IsNot: ("is not", "is")}
COMPARISONS |= {ast.In: ("in", "not in"), ast.NotIn: ("not in", "in")}
CONNECTIVES = {ast.And: ("and", "or"), ast.Or: ("or", "and")}


@dataclass(frozen=True)
class Mutation:
    """One piece of one line, and what stands there instead. Columns count bytes, as `ast` does."""

    module: str
    line: int
    start: int
    end: int
    before: str
    after: str

    def applied(self, source: bytes) -> bytes:
        """The module's source with the mutation in it."""
        lines = source.splitlines(keepends=True)
        line = lines[self.line - 1]
        lines[self.line - 1] = line[: self.start] + self.after.encode() + line[self.end :]
        return b"".join(lines)


@dataclass(frozen=True)
class Spot:
    """A piece of a line."""

    line: int
    start: int
    end: int


def mutations(source: bytes, module: str = "") -> Iterator[Mutation]:
    """Every mutation of a module, in the order of its lines."""
    lines = source.splitlines()
    found = (
        Mutation(module, spot.line, spot.start, spot.end, lines[spot.line - 1][spot.start : spot.end].decode(), after)
        for node in ast.walk(ast.parse(source))
        for spot, after in changes(node, lines)
    )
    yield from sorted(
        {one for one in found if one.before != one.after}, key=lambda one: (one.line, one.start, one.end, one.after)
    )


def changes(node: ast.AST, lines: list[bytes]) -> Iterator[tuple[Spot, str]]:
    """The pieces of a node that can be changed, and what each becomes."""
    if isinstance(node, ast.BinOp):
        yield from between(node.left, node.right, OPERATORS.get(type(node.op)), lines)
    elif isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        for left, operator, right in zip(sides, node.ops, sides[1:], strict=False):
            yield from between(left, right, COMPARISONS.get(type(operator)), lines)
    elif isinstance(node, ast.BoolOp):
        for left, right in zip(node.values, node.values[1:], strict=False):
            yield from between(left, right, CONNECTIVES.get(type(node.op)), lines)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        after = not node.value if isinstance(node.value, bool) else node.value + 1
        yield from whole(node, str(after))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield from whole(node, ast.unparse(node.operand), parenthesised=True)
    elif isinstance(node, ast.Return) and node.value is not None:
        yield from whole(node.value, "None")
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        yield from whole(node.test, f"not ({ast.unparse(node.test)})", parenthesised=True)
    elif isinstance(node, ast.AugAssign) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        yield from whole(node, "pass")


def whole(node: ast.expr | ast.stmt, after: str, parenthesised: bool = False) -> Iterator[tuple[Spot, str]]:
    """A node that stands on one line."""
    if node.lineno == node.end_lineno and node.end_col_offset is not None:
        yield Spot(node.lineno, node.col_offset, node.end_col_offset), f"({after})" if parenthesised else after


def between(
    left: ast.expr, right: ast.expr, operator: tuple[str, str] | None, lines: list[bytes]
) -> Iterator[tuple[Spot, str]]:
    """The operator between two nodes, if it stands on a line with both."""
    if operator is None or left.end_lineno != right.lineno or left.end_col_offset is None:
        return
    before, after = operator
    at = lines[right.lineno - 1].find(before.encode(), left.end_col_offset, right.col_offset)
    if at >= 0:
        yield Spot(right.lineno, at, at + len(before)), after


def mirrored(module: str) -> list[str]:
    """The test files of a module by their names; its whole folder's where none has its name."""
    inside = Path(module).relative_to("fccl")
    folder = Path("tests") / inside.parent
    own = sorted((ROOT / folder).glob(f"test_{inside.stem}*.py"))
    return [str(path.relative_to(ROOT)) for path in own] or [str(folder)]


@cache
def _mutations_of(source: bytes, module: str) -> tuple[Mutation, ...]:
    return tuple(mutations(source, module))


def sample(count: int, seed: int) -> list[Mutation]:
    """So many mutations, drawn from all; all of them with a count of 0."""
    paths = sorted(path for name in FOLDERS for path in (ROOT / "fccl" / name).rglob("*.py"))
    found = [one for path in paths for one in _mutations_of(path.read_bytes(), str(path.relative_to(ROOT)))]
    return random.Random(seed).sample(found, count) if 0 < count < len(found) else found


def verdict(mutation: Mutation, folder: Path, limit_s: float) -> str:
    """`caught`, `survived`, or `endless` where the tests had not ended in time, which is caught as well."""
    target = folder / mutation.module
    original = target.read_bytes()
    target.write_bytes(mutation.applied(original))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *mirrored(mutation.module)]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=limit_s, check=False)
        return "survived" if done.returncode == 0 else "caught"
    except subprocess.TimeoutExpired:
        return "endless"
    finally:
        target.write_bytes(original)


def key(mutation: Mutation) -> str:
    """Names a mutation of a module as the module is now."""
    content = (ROOT / mutation.module).read_bytes()
    return hashlib.sha256(content + json.dumps(asdict(mutation)).encode()).hexdigest()


def judged(chosen: list[Mutation], out: Path, limit_s: float) -> dict[Mutation, str]:
    """The verdict on each mutation, from `out` where it is there already."""
    kept = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    known = {row["key"]: row["verdict"] for row in kept}
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, out.open("a") as file:
        for part in COPIED:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
            copy(ROOT / part, Path(name) / part)
        for mutation in track([one for one in chosen if key(one) not in known], "mutating"):
            known[key(mutation)] = verdict(mutation, Path(name), limit_s)
            file.write(json.dumps({"key": key(mutation), "verdict": known[key(mutation)]}) + "\n")
            file.flush()
    return {mutation: known[key(mutation)] for mutation in chosen}


def show(verdicts: dict[Mutation, str]) -> None:
    """The share that was caught, and a line for each survivor."""
    survivors = [mutation for mutation, said in verdicts.items() if said == "survived"]
    table = Table("module", "line", "before", "after", title="Survivors")
    for one in sorted(survivors, key=lambda one: (one.module, one.line)):
        table.add_row(one.module, str(one.line), one.before, one.after)
    console = Console()
    if survivors:
        console.print(table)
    caught = len(verdicts) - len(survivors)
    console.print(f"{caught} of {len(verdicts)} mutations caught ({100 * caught / len(verdicts):.0f} %)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="mutations to draw; 0 takes all (default 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default 0)")
    parser.add_argument("--limit-s", type=float, default=300.0, help="seconds for a module's tests (default 300)")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "mutants.jsonl", help="where verdicts are kept")
    options = parser.parse_args()
    show(judged(sample(options.count, options.seed), options.out, options.limit_s))


if __name__ == "__main__":
    main()
