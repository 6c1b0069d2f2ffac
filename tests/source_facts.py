"""Facts of a source file, for the rules of every file: each file is read and parsed once for all of them."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OWN = ("self", "cls")


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def dotted_private(text: str) -> str | None:
    """The private part of a dotted name such as `fccl.config._read`, where a text is one."""
    parts = text.split(".")
    if parts[0] != "fccl" and len(parts) > 1:
        return None
    return next((part for part in parts if is_private(part) and part.isidentifier()), None)


def reached(kinds: dict[type[ast.AST], list]) -> Iterator[tuple[int, str]]:
    """Line and name of each private member that a file names."""
    for node in kinds[ast.ImportFrom]:
        names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
        yield from ((node.lineno, name) for name in names if is_private(name))
    for node in kinds[ast.Attribute]:
        if is_private(node.attr) and not (isinstance(node.value, ast.Name) and node.value.id in OWN):
            yield node.lineno, node.attr
    for node in kinds[ast.Call]:
        if isinstance(node.func, ast.Attribute) and "attr" in node.func.attr:
            texts = [part.value for part in node.args if isinstance(part, ast.Constant) and isinstance(part.value, str)]
            found = map(dotted_private, texts)
            yield from ((node.lineno, name) for name in found if name)


def public_docstrings(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """The docstrings of a module, of its public functions and classes, and of their public methods."""
    yield ast.get_docstring(node) or ""
    for inner in node.body:
        if isinstance(inner, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not is_private(inner.name):
            yield from public_docstrings(inner)


def by_kind(tree: ast.Module) -> dict[type[ast.AST], list]:
    """Every node of a tree, sorted by its class."""
    found, todo = defaultdict(list), [tree]
    for node in todo:
        found[type(node)].append(node)
        for part in vars(node).values():
            if isinstance(part, ast.AST):
                todo.append(part)
            elif type(part) is list:
                todo += [each for each in part if isinstance(each, ast.AST)]
    return found


@dataclass(frozen=True)
class Facts:
    """One file's; the trees themselves would take hundreds of megabytes."""

    defined: frozenset[str]  # every private name that it defines: functions, classes, variables, attributes of `self`
    reached: tuple[tuple[int, str], ...]  # line and name of each private member that it names
    lengths: tuple[tuple[int, str, int], ...]  # line, name and number of lines of each function
    docstrings: tuple[str, ...]  # of what is public
    all_docstrings: tuple[str, ...]
    imports: frozenset[str]  # modules
    of_package: frozenset[str]  # names by `from fccl import …`
    classes: tuple[str, ...]  # at the top level


@cache
def facts(path: Path) -> Facts:
    """Those of a file of the checkout."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = by_kind(tree)
    functions = kinds[ast.FunctionDef] + kinds[ast.AsyncFunctionDef]
    definitions = {node.name for node in functions + kinds[ast.ClassDef]}
    variables = {node.id for node in kinds[ast.Name] if isinstance(node.ctx, ast.Store)}
    attributes = {node.attr for node in kinds[ast.Attribute] if isinstance(node.ctx, ast.Store)}
    modules = {alias.name for node in kinds[ast.Import] for alias in node.names}
    modules |= {node.module for node in kinds[ast.ImportFrom] if node.module not in (None, "fccl")}
    documented = [tree, *kinds[ast.ClassDef], *functions]
    return Facts(
        defined=frozenset(filter(is_private, definitions | variables | attributes)),
        reached=tuple(reached(kinds)),
        lengths=tuple((each.lineno, each.name, (each.end_lineno or 0) - each.lineno + 1) for each in functions),
        docstrings=tuple(public_docstrings(tree)),
        all_docstrings=tuple(ast.get_docstring(node) or "" for node in documented),
        imports=frozenset(modules),
        of_package=frozenset(a.name for node in kinds[ast.ImportFrom] if node.module == "fccl" for a in node.names),
        classes=tuple(node.name for node in tree.body if isinstance(node, ast.ClassDef)),
    )
