import pytest

from tests.transports.flower.grids import super_link
from tests.transports.flower.sites import Sites


@pytest.fixture
def sites(tmp_path):
    """Two sites, and no node yet."""
    with super_link() as nodes:
        yield Sites(tmp_path, nodes)
