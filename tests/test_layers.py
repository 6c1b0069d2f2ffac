"""The layout is the architecture: a module imports only from rows below its own, and nothing heavy at the top."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "fccl"

# From the top down; a name stands for the module or for the whole folder.
ROWS = (
    ("__main__",),
    ("apps",),
    ("compare",),
    ("transports", "checkpoint", "tracking"),
    ("federation",),
    ("view",),
    ("training", "aggregation", "contribution", "evaluation", "exchange", "export", "model_card", "comparison"),
    ("messages", "journal", "scoring", "model", "base_model", "lora_targets", "encoding", "losses", "tokens"),
    ("adapter", "stored", "lora", "tensor_files", "torch_files", "keys", "data", "records", "config"),
    ("specs", "paths", "files", "locks", "temporary", "presets", "private", "reading"),
    ("errors", "plain_text"),
)
# Within a row, only these look at each other, and only this way.
WITHIN = {
    ("files", "temporary"),
    ("locks", "files"),
    ("private", "files"),
    ("locks", "temporary"),
    ("reading", "specs"),
    ("adapter", "tensor_files"),
    ("adapter", "torch_files"),
    ("stored", "adapter"),
    ("stored", "tensor_files"),
    ("lora", "adapter"),
    ("lora", "stored"),
    ("messages", "journal"),
    ("encoding", "tokens"),
    ("model", "base_model"),
    ("model", "lora_targets"),
    ("model", "encoding"),
    ("model", "losses"),
    ("scoring", "model"),
    ("scoring", "encoding"),
    ("scoring", "losses"),
    ("contribution", "aggregation"),
    ("comparison", "evaluation"),
}
# The lowest row that may import it.
HEAVY = {"torch": 2, "transformers": 3, "peft": 3, "datasets": 2, "sklearn": 2, "matplotlib": 2, "pandas": 5, "altair": 5, "streamlit": 9}


def part_of(module: str) -> str:
    return module.split(".")[1] if module.count(".") else "__init__"


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


MODULES = sorted(path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for path in PACKAGE.rglob("*.py"))
ROW_OF = {name: len(ROWS) - 1 - index for index, row in enumerate(ROWS) for name in row}


def test_every_module_has_a_row():
    parts = {part_of(module.removesuffix(".__init__")) for module in MODULES}
    assert parts - {"__init__"} == set(ROW_OF)


@pytest.mark.parametrize("module", [module for module in MODULES if module != "fccl.__init__"])
def test_imports_only_from_rows_below(module):
    mine = part_of(module)
    for name in imports_of(ROOT / (module.replace(".", "/") + ".py")):
        if name == "fccl" or not name.startswith("fccl."):
            continue
        theirs = part_of(name)
        allowed = theirs == mine or ROW_OF[theirs] < ROW_OF[mine] or (mine, theirs) in WITHIN
        assert allowed, f"{module} (row {ROW_OF[mine]}) imports {name} (row {ROW_OF[theirs]})"


@pytest.mark.parametrize("library", HEAVY)
def test_heavy_libraries_enter_no_lower_than_their_row(library):
    for module in MODULES:
        if library in {name.split(".")[0] for name in imports_of(ROOT / (module.replace(".", "/") + ".py"))}:
            assert ROW_OF[part_of(module)] >= HEAVY[library], module


@pytest.mark.parametrize("library", ["torch", "streamlit"])
def test_the_view_loads_neither_torch_nor_a_page(library):
    names = ", ".join(module.removesuffix(".__init__") for module in MODULES if part_of(module) == "view")
    code = f"import sys, {names}; sys.exit({library!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("library", [*HEAVY, "pydantic", "rich"])
def test_help_imports_nothing_heavy(library):
    code = f"import sys; from fccl.apps.main import main; main(['--help']); sys.exit({library!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False).returncode == 0


def test_transformers_and_peft_enter_in_one_place():
    both = {"transformers", "peft"}
    allowed = {
        "fccl.model": both,
        "fccl.base_model": both,
        "fccl.lora_targets": both,
        "fccl.encoding": {"transformers"},
        "fccl.tokens": {"transformers"},
    }
    for module in MODULES:
        tops = {name.split(".")[0] for name in imports_of(ROOT / (module.replace(".", "/") + ".py"))}
        assert tops & {"transformers", "peft"} <= allowed.get(module, set()), module
