"""What README and docs/ tell a person to type exists: commands, arguments, settings, files."""

import ast
import re
import runpy
import shlex
from pathlib import Path

import pytest

from fccl.apps.arguments import parse
from fccl.apps.commands import COMMANDS
from fccl.config import Settings, load_settings
from fccl.errors import SettingsError
from fccl.library.ignored import refuse_ignored
from fccl.library.own_rules import named
from tests.prose import sentences

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))  # they tell what was then, too
HISTORY = {"log.md"}  # it tells what was tried when, with the names of then
PRESENT = [page for page in PAGES if page.name not in HISTORY]
IN_SENTENCES = [
    *PRESENT,
    *sorted((ROOT / "examples").glob("*.md")),
    *DECISIONS,
]
MOST_WORDS = 30  # of a sentence
# Variables of other programs, of compose and of make.
OTHERS = {
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL",
    "BASE_IMAGE",
    "BUILD_NETWORK",
    "CLIENT_MEMORY",
    "CUDA_VISIBLE_DEVICES",
    "DASHBOARD_ADDRESS",
    "DASHBOARD_PORT",
    "FCCL_GID",
    "FLOWER_DIR",
    "FLOWER_HOSTS",
    "FCCL_UID",
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "MODELS_DIR",
    "MKL_CBWR",
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "PROXY_ADDRESS",
    "PROXY_PORT",
    "SERVER_MEMORY",
    "TORCH_INDEX",
    "MLFLOW_TRACKING_URI",
    "WANDB_MODE",
    "ENOSPC",
    "SIGKILL",
    "SIGTERM",
    "SIGINT",
    "O_NOFOLLOW",
    "O_NONBLOCK",
    "O_EXCL",
}
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
CODE = re.compile(r"`((?:benchmarks|docker|examples|fccl|scripts|tests)/[\w./-]*\w/?)`")
MODULE = re.compile(r"`(fccl(?:\.\w+)+)`")
NAME = re.compile(
    r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+|SEED|THREADS|AGGREGATION|PRESET|TRACK|EVALUATE|WARMUP)(?:=([^`\s]*))?`"
)


def command_lines(page: Path) -> list[list[str]]:
    """The arguments of every `fccl COMMAND …` in the code blocks of a page, continued lines joined, comments
    left out."""
    lines = "\n".join(BLOCK.findall(page.read_text())).replace("\\\n", "").splitlines()
    words = [
        shlex.split(line, comments=True) for line in lines if re.match(r"\s*(\S+=\S+\s+)*(\S*python -m )?fccl\s", line)
    ]
    return [each[each.index("fccl") + 1 :] for each in words]


CALLS = [
    pytest.param(call, id=f"{page.name}: {' '.join(call)[:60]}") for page in PRESENT for call in command_lines(page)
]


@pytest.mark.parametrize("call", CALLS)
def test_every_command_line_that_a_page_shows_is_understood(call):
    name, *arguments = call
    assert name in COMMANDS
    if "--help" not in arguments:
        settings, _ = parse(name, [word for word in arguments if word not in ("…", "...")])
        found = load_settings(settings)
        if name in ("run", "orchestrator") and not named(found):  # a class of the page: tests/test_own_rules_page.py
            refuse_ignored(found, settings)


@pytest.mark.parametrize("page", PRESENT, ids=lambda page: page.name)
def test_every_setting_that_a_page_names_exists_and_takes_the_value_shown(page):
    for name, value in NAME.findall(page.read_text()):
        if name in OTHERS:
            continue
        assert name.lower() in Settings.model_fields, f"{page.name} names {name}"
        if value and not re.search(r"[|…<>]|^\.\.\.", value):
            load_settings({name.lower(): value})


@pytest.mark.parametrize("page", [*PRESENT, *DECISIONS], ids=lambda page: page.name)
def test_every_file_and_module_of_the_code_that_a_page_names_is_there(page):
    text = page.read_text(encoding="utf-8")
    assert [name for name in CODE.findall(text) if not (ROOT / name).exists()] == []
    assert [name for name in MODULE.findall(text) if not is_of_the_code(name)] == []


def is_of_the_code(name: str) -> bool:
    """Whether a dotted name is a module's, or stands in the module before its last dot. Nothing is imported."""
    *package, last = name.split(".")
    folder = ROOT.joinpath(*package)
    file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    found = (folder / last).is_dir() or (folder / f"{last}.py").exists()
    return found or (file.exists() and re.search(rf"\b{last}\b", file.read_text(encoding="utf-8")) is not None)


@pytest.mark.parametrize("page", [*PAGES, *DECISIONS], ids=lambda page: page.name)
def test_every_file_that_a_page_links_to_is_there(page):
    here = [target for target in LINK.findall(page.read_text()) if "://" not in target]
    assert [target for target in here if not (page.parent / target).exists()] == []


def headings(page: Path) -> set[str]:
    """A page's headings, as addresses name them."""
    prose = BLOCK.sub("", page.read_text(encoding="utf-8"))
    said = [
        re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", each).lower() for each in re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    ]
    return {re.sub(r"[^\w\- ]", "", each).replace(" ", "-") for each in said}


@pytest.mark.parametrize("page", [*PAGES, *DECISIONS], ids=lambda page: page.name)
def test_every_heading_that_a_page_links_to_is_there(page):
    links = re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", BLOCK.sub("", page.read_text(encoding="utf-8")))
    here = [(page.parent / target if target else page, heading) for target, heading in links if "://" not in target]
    assert [f"{target}#{heading}" for target, heading in here if heading not in headings(target)] == []


def test_the_checks_would_see_a_wrong_command_and_a_wrong_setting():
    with pytest.raises(SettingsError):
        parse("run", ["--fed-round", "3"])
    assert NAME.findall("`FED_ROUND=3` `NON_IID_ALPHA`") == [("FED_ROUND", "3"), ("NON_IID_ALPHA", "")]
    assert len(CALLS) >= 20


def test_the_settings_page_is_what_the_settings_are():
    made = runpy.run_path(str(ROOT / "scripts" / "settings_page.py"))
    assert made["page"]() == made["PAGE"].read_text(encoding="utf-8"), "run `make settings-page`"


def test_the_table_of_the_privacy_page_is_what_is_refused():
    made = runpy.run_path(str(ROOT / "scripts" / "settings_page.py"))
    now = made["PRIVACY"].read_text(encoding="utf-8")
    assert made["privacy"](now) == now, "run `make settings-page`"


def test_every_page_of_docs_is_reached_from_the_index():
    index = (ROOT / "docs" / "README.md").read_text()
    assert [
        page.name for page in (ROOT / "docs").glob("*.md") if page.name != "README.md" and f"({page.name}" not in index
    ] == []


def test_every_decision_has_one_line_in_the_index_by_its_number():
    index = (ROOT / "docs" / "decisions" / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| \[(\d+)\]\((\d{4}-[^)]*\.md)\) \| \S.* \|$", index, re.MULTILINE)
    assert sorted(name for _, name in lines) == [page.name for page in DECISIONS if page.name != "README.md"]
    assert [number for number, name in lines if int(name[:4]) != int(number)] == []


def test_the_library_s_arguments_are_what_the_settings_are():
    made = runpy.run_path(str(ROOT / "scripts" / "settings_page.py"))
    assert ast.dump(ast.parse(made["module"]())) == ast.dump(ast.parse(made["MODULE"].read_text(encoding="utf-8"))), (
        "run `make settings-page`"
    )


def test_prose_of_the_docs_is_no_wider_than_the_code():
    """Tables, code and addresses may be."""
    wide = []
    for page in (ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))):
        if page.name in ("log.md", "settings.md"):  # notes as they were made; generated
            continue
        prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
        wide += [f"{page.name}: {line[:60]}" for line in prose.splitlines() if len(line) > 120 and "|" not in line[:3]]
    assert wide == []


@pytest.mark.parametrize("page", IN_SENTENCES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_sentence_of_a_page_has_more_than_30_words(page):
    long = [each for each in sentences(page.read_text(encoding="utf-8")) if each.words > MOST_WORDS]
    name = page.relative_to(ROOT)
    assert not long, "\n".join(f"{name}:{each.line} has {each.words} words: {each.text}" for each in long)
