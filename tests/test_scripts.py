"""What is typed to call a script of benchmarks/, scripts/ or examples/, and what such a script types, exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from benchmarks.bench_plan import GPT2
from fccl.apps.arguments import build_parser, parse
from fccl.apps.commands import COMMANDS
from fccl.config import load_settings

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = {
    f"{folder}/{path.name}": path
    for folder in ("benchmarks", "scripts", "examples")
    for path in sorted((ROOT / folder).glob("*.py"))
}
MAKEFILE = ROOT / "Makefile"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SHOWN = [MAKEFILE, *(page for page in PAGES if page.name != "log.md"), *SCRIPTS.values()]  # the log tells of then
CALL = re.compile(r"\b((?:benchmarks|scripts|examples)/\w+\.py)([^\n`]*?)(?=&&|[\n`])")
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
TARGET = re.compile(r"make ((?:bench|chaos|evidence|settings|test)-[a-z-]+[a-z])")
# Of pip, of uv and of Chromium.
OTHERS = {
    "benchmarks/pretrained.py": {"--quiet", "--disable-pip-version-check", "--dest", "--no-deps", "--target"},
    "scripts/lock.py": {
        "--constraints",
        "--no-annotate",
        "--no-header",
        "--output-file",
        "--python-version",
        "--quiet",
    },
    "scripts/screenshots.py": {
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-gpu",
        "--disable-sync",
        "--no-first-run",
        "--no-sandbox",
    },
}


@cache
def options_of_commands() -> frozenset[str]:
    """The options of all commands of the package."""
    helps = (build_parser(name, command).format_help() for name, command in COMMANDS.items())
    return frozenset(option for text in helps for option in OPTION.findall(text))


@cache
def options_of(name: str) -> frozenset[str]:
    """What a script reads: its parser's options, or those that it looks for among its arguments."""
    source = SCRIPTS[name].read_text(encoding="utf-8")
    nodes = list(ast.walk(ast.parse(source)))
    added = [node for node in nodes if isinstance(node, ast.Call) and "add_argument" in ast.unparse(node.func)]
    sought = [node for node in nodes if isinstance(node, ast.Compare) and "sys.argv" in ast.unparse(node)]
    own = frozenset(option for node in (*added, *sought) for option in words_of(node))
    return own | options_of_commands() if "parse_known_args" in source else own


def words_of(tree: ast.AST) -> set[str]:
    """The texts in it that are an option and nothing else."""
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {text for text in texts if isinstance(text, str) and OPTION.fullmatch(text)}


def calls_in(path: Path) -> list[tuple[str, list[str]]]:
    """The scripts that a file shows or starts by their names, each with the options beside it."""
    text = path.read_text(encoding="utf-8").replace("\\\n", "") + "\n"
    return [(name, OPTION.findall(rest)) for name, rest in CALL.findall(text)]


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_script_that_is_named_is_there_and_has_the_options_beside_it(path):
    unknown = [
        (name, option)
        for name, options in calls_in(path)
        for option in options or [None]
        if name not in SCRIPTS or (option and option not in options_of(name))
    ]
    assert unknown == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_option_in_a_script_is_its_own_or_one_of_a_command(name):
    said = words_of(ast.parse(SCRIPTS[name].read_text(encoding="utf-8")))
    assert said - options_of(name) - options_of_commands() - OTHERS.get(name, set()) == set()


def test_every_target_that_is_named_is_one_of_the_makefile():
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE.read_text(), re.MULTILINE))
    named = {target for path in SHOWN for target in TARGET.findall(path.read_text(encoding="utf-8"))}
    assert named - targets == set()


@pytest.mark.parametrize("command", ["plan", "run"])
def test_the_settings_that_bench_plan_makes_into_options_are_understood(command):
    words = [word for name, value in GPT2.items() for word in (f"--{name.replace('_', '-')}", value)]
    given, _ = parse(command, words)
    assert load_settings(given).num_clients == 2


def test_the_checks_would_see_a_script_and_an_option_that_are_not_there(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("python benchmarks/bench_plan.py --time 3\nRun `python scripts/none.py`, or `--times` of another.")
    assert calls_in(page) == [("benchmarks/bench_plan.py", ["--time"]), ("scripts/none.py", [])]
    assert "--times" in options_of("benchmarks/bench_plan.py")
    assert "--time" not in options_of("benchmarks/bench_plan.py")
    assert "--upgrade" in options_of("scripts/lock.py")
    assert "--fed-round" not in options_of_commands()
    assert "--fed-rounds" in options_of_commands() & options_of("benchmarks/bench_verified.py")
    assert sum(len(calls_in(path)) for path in SHOWN) > 60
