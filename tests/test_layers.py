"""The layout is the architecture: a module imports only from storeys below its own, and nothing heavy at the top."""

import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.source_facts import facts

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "fccl"

# From the top down; a name stands for the module or for the whole folder. CONTRIBUTING's table has the same rows.
_SETTINGS = ("presets", "registry", "extras", "config")
STOREYS = (
    ("apps", "hf", "__main__"),
    ("pages", "library", "flower"),
    ("compare", "testing"),
    ("federation",),
    ("transports", "training", "contribution", "evaluation", "tracking"),
    ("view", "model", "messages"),
    ("aggregation", "data", "privacy"),
    ("adapters", "records", "keys"),
    (
        *("errors", "specs", "phases", "display", "paths", "storage", "processes"),
        *_SETTINGS,
    ),
)
GROUND = STOREYS[-1]  # the one storey with an order of its own: each may import those that stand before it
# The lowest storey that may import it.
HEAVY = {
    "torch": 2,
    "transformers": 4,
    "peft": 4,
    "bitsandbytes": 4,
    "datasets": 3,
    "sklearn": 3,
    "vl_convert": 1,
    "pandas": 4,
    "trl": 10,  # nowhere: people bring it
    "altair": 4,
    "streamlit": 8,
    "flwr": 5,
    "pytest": 7,
    "hypothesis": 7,
}


def part_of(module: str) -> str:
    return module.split(".")[1] if module.count(".") else "__init__"


def imports_of(path: Path) -> frozenset[str]:
    """The modules that a file imports."""
    return facts(path).imports | {f"fccl.{name}" for name in facts(path).of_package if name in STOREY_OF}


MODULES = sorted(path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for path in PACKAGE.rglob("*.py"))
STOREY_OF = {name: len(STOREYS) - index for index, storey in enumerate(STOREYS) for name in storey}


def test_every_module_has_a_storey():
    parts = {part_of(module.removesuffix(".__init__")) for module in MODULES}
    assert parts - {"__init__"} == set(STOREY_OF)


def test_imports_only_from_storeys_below():
    found = [
        f"{module} (storey {STOREY_OF[part_of(module)]}) imports {name} (storey {STOREY_OF[part_of(name)]})"
        for module in MODULES
        if module != "fccl.__init__"
        for name in sorted(imports_of(ROOT / (module.replace(".", "/") + ".py")))
        if name.startswith("fccl.") and not may_import(part_of(module), part_of(name))
    ]
    assert not found, "\n".join(found)


def may_import(mine: str, theirs: str) -> bool:
    if mine in GROUND and theirs in GROUND:
        return GROUND.index(theirs) <= GROUND.index(mine)
    return mine == theirs or STOREY_OF[theirs] < STOREY_OF[mine] or (mine, theirs) == ("__main__", "apps")


def test_settings_are_read_by_the_two_top_storeys_alone():
    """Below them everything is told what it needs: a federation runs without settings."""
    for module in MODULES:
        reads = {name for name in imports_of(ROOT / (module.replace(".", "/") + ".py")) if part_of(name) == "config"}
        assert not reads or part_of(module) == "config" or STOREY_OF[part_of(module)] >= 8, module


def test_commands_share_no_internals():
    """A command's module is imported by `fccl.apps.main` alone, by name; what two need is in a module of no command."""
    from fccl.apps.arguments import COMMANDS

    commands = {f"fccl.apps.{command.module}" for command in COMMANDS.values()}
    assert commands <= set(MODULES)
    for module in MODULES:
        assert not imports_of(ROOT / (module.replace(".", "/") + ".py")) & commands, module


def test_the_table_of_contributing_has_these_storeys():
    rows = re.findall(r"^\| (\d) \| ([^|]*) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    told = {int(number): set(re.findall(r"`(\w+)(?:/|\.py)?`", names)) for number, names in rows}
    assert told == {STOREY_OF[storey[0]]: set(storey) for storey in STOREYS}


def test_no_folder_is_an_attic():
    lines = dict.fromkeys(STOREY_OF, 0)
    for path in PACKAGE.rglob("*.py"):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        lines[part if part in lines else "errors"] += len(path.read_text().splitlines())
    assert max(lines.values()) < 0.15 * sum(lines.values()), lines


@pytest.mark.parametrize("library", HEAVY)
def test_heavy_libraries_enter_no_lower_than_their_storey(library):
    for module in MODULES:
        if library in {name.split(".")[0] for name in imports_of(ROOT / (module.replace(".", "/") + ".py"))}:
            assert STOREY_OF[part_of(module)] >= HEAVY[library], module


@functools.cache
def loaded_by(code: str) -> frozenset[str]:
    """The modules that a fresh process has loaded after this code."""
    code = f"import sys; {code}; print(); print(*sys.modules)"
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return frozenset(process.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("library", ["torch", "streamlit"])
def test_the_view_loads_neither_torch_nor_a_page(library):
    loaded = loaded_by(
        "import " + ", ".join(module.removesuffix(".__init__") for module in MODULES if part_of(module) == "view")
    )
    assert "fccl.view.status" in loaded
    assert library not in loaded


@pytest.mark.parametrize("library", [*HEAVY, "pydantic", "rich"])
def test_help_imports_nothing_heavy(library):
    loaded = loaded_by("from fccl.apps.main import main; main(['--help'])")
    assert "fccl.apps.main" in loaded
    assert library not in loaded


@pytest.mark.parametrize("folder", ["scripts", "benchmarks", "examples"])
def test_what_people_run_imports_no_tests(folder):
    scripts = sorted((ROOT / folder).glob("*.py"))
    assert scripts
    assert [path.name for path in scripts if {name.split(".")[0] for name in imports_of(path)} & {"tests"}] == []


def test_only_the_tools_for_tests_need_test_libraries():
    for module in MODULES:
        tops = {name.split(".")[0] for name in imports_of(ROOT / (module.replace(".", "/") + ".py"))}
        assert not tops & {"pytest", "hypothesis"} or part_of(module) == "testing", module


def test_flower_enters_in_its_transport_and_the_door_for_apps_of_people():
    doors = ("fccl.transports.flower.", "fccl.flower")
    for module in MODULES:
        tops = {name.split(".")[0] for name in imports_of(ROOT / (module.replace(".", "/") + ".py"))}
        assert "flwr" not in tops or module.startswith(doors), module


def test_transformers_and_peft_enter_in_one_place_and_the_door_for_trainers():
    for module in MODULES:
        tops = {name.split(".")[0] for name in imports_of(ROOT / (module.replace(".", "/") + ".py"))}
        assert not tops & {"transformers", "peft"} or module.startswith(("fccl.model.", "fccl.hf.")), module
