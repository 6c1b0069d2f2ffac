"""Every block of Python in docs/library.md runs, in the page's order, with little data."""

import re
import runpy
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "library.md").read_text(), re.MULTILINE | re.DOTALL)
LITTLE = {"MAX_SFT_EXAMPLES": "60", "MAX_VA_EXAMPLES": "30", "GEN_SAMPLES": "0", "BOOTSTRAP_SAMPLES": "100"}


def test_the_blocks_of_the_page_run_one_after_the_other(small_run, tmp_path, monkeypatch, capsys):
    shutil.copytree(small_run / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, value in LITTLE.items():
        monkeypatch.setenv(name, value)
    known = {}
    for block in BLOCKS:
        if named := re.match(r"# (\w+)\.py\n", block):
            Path(f"{named[1]}.py").write_text(block)
            runpy.run_path(f"{named[1]}.py")
        else:
            exec(compile(block, "docs/library.md", "exec"), known)
    assert len(BLOCKS) >= 7
    assert known["run"].finished
    assert "FedVA against SFT" in capsys.readouterr().out
    monkeypatch.delitem(sys.modules, "square_root")
