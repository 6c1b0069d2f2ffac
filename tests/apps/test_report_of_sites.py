"""The report of clients that exist: who became whom, and whom the federation helped."""

import pytest

from fccl.records.run import OwnTestResult
from fccl.storage.files import write_text
from tests.apps.test_report import report, section, settings, table
from tests.view.histories import named_clients
from tests.view.logs import Logs


@pytest.fixture
def logs(tmp_path):
    return Logs(tmp_path / "logs")


def test_clients_that_the_data_names_and_whom_the_federation_helped(logs):
    logs.begin(**settings())
    said = OwnTestResult(client_id=1, examples=12, units=90, base=3.0, alone=2.0, together=1.5)
    logs.append(logs.paths.progress, logs.record(0).model_copy(update={"own_tests": (said,)}))
    logs.commit(1)
    write_text(logs.paths.manifest, named_clients().model_dump_json())
    page = report(logs.root)
    assert "by the column user" in section(page, "data").text
    assert [row[:2] for row in table(page, "Who became whom")[1:3]] == [["0", "ann"], ["1", "bob, cid"]]
    assert table(page, "Whom the federation helped")[1][-1] == "−0.500 ▲ better"
