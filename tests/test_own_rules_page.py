"""The classes that docs/own-rules.md shows are rules, and pass the suites as the page says."""

import re
import sys
from pathlib import Path

import pytest

from fccl.aggregation.rules import aggregation
from fccl.contribution.rules import weigher
from fccl.testing.aggregation import AggregationContract
from fccl.testing.weigher import WeigherContract

PAGE = Path(__file__).resolve().parent.parent / "docs" / "own-rules.md"
MODULES = dict(re.findall(r"^```python\n# (\w+)\.py\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module", autouse=True)
def modules(tmp_path_factory):
    """The page's modules, in a folder that is searched."""
    folder = tmp_path_factory.mktemp("page")
    for name in ("trust", "cautious"):
        (folder / f"{name}.py").write_text(MODULES[name])
    sys.path.append(str(folder))
    yield
    sys.path.remove(str(folder))


class TestTrust(WeigherContract):
    def rule(self, loss):
        return weigher("cognitive", "trust:Trust", {"verify_temperature": 0.2}, lambda: loss)


class TestWithoutTheFarthest(AggregationContract):
    withstands = 1

    def rule(self):
        return aggregation("cautious:WithoutTheFarthest")


def test_the_page_s_own_test_file_is_python_and_has_the_two_suites():
    compile(MODULES["test_trust"], "test_trust.py", "exec")
    assert "class TestTrust(WeigherContract)" in MODULES["test_trust"]
    assert "class TestWithoutTheFarthest(AggregationContract)" in MODULES["test_trust"]
