"""The dashboard's page without a browser."""

import sys
from functools import cache

import pytest

from tests.pages.script import script


@pytest.fixture(autouse=True)
def _main_module_as_before(monkeypatch):
    """AppTest leaves its script behind as `__main__`, and every process that multiprocessing starts later would run
    that script first.
    """
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture(scope="session", autouse=True)
def _components_are_looked_for_once():
    """Each AppTest asks every installed package whether it brings components of Streamlit: four fifths of a test."""
    from streamlit.components.v2 import manifest_scanner

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_scanner, "scan_component_manifests", cache(manifest_scanner.scan_component_manifests))
        yield


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The page of `logs` and `exchange` in the test's folder; it reads everything anew whenever it runs."""
    from streamlit.testing.v1 import AppTest

    from fccl.pages.dashboard import readers

    monkeypatch.setattr(readers, "FRESH_S", 0.0)
    return AppTest.from_function(script, args=(str(tmp_path),), default_timeout=60)
