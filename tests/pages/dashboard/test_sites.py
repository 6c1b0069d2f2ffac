"""The dashboard of clients that exist: who became whom, what is declared, whom the federation helped."""

import pytest

from fccl.records.run import OwnTestResult
from fccl.storage.files import write_text
from tests.pages.script import shown, texts
from tests.view import histories
from tests.view.logs import Logs


@pytest.fixture
def logs(tmp_path):
    """A run after its first round."""
    made = Logs(tmp_path / "logs").begin()
    made.round(0)
    return made


def own_data():
    """The manifest of data that is the server's alone."""
    whole = histories.manifest()
    partition = whole.spec.partition.model_copy(update={"num_clients": 0})
    spec = whole.spec.model_copy(update={"server_only": True, "partition": partition})
    nobody = {"spec": spec, "topics": (), "topics_by_client": {"sft": (), "va": ()}}
    return whole.model_copy(update=nobody)


def test_data_says_who_became_whom(page, logs):
    write_text(logs.paths.manifest, histories.named_clients().model_dump_json())
    found = texts(shown(page, "Data"))
    assert "left out: 1 small name with 4 examples" in found
    assert "bob, cid" in found


def test_data_says_that_clients_hold_their_own(page, logs):
    write_text(logs.paths.manifest, own_data().model_dump_json())
    assert "Every client holds its own data" in texts(shown(page, "Data"))


def test_clients_says_what_is_declared_and_whom_the_federation_helped(page, logs):
    write_text(logs.paths.manifest, own_data().model_dump_json())
    said = OwnTestResult(client_id=1, examples=12, units=90, base=3.0, alone=2.0, together=1.5)
    logs.append(logs.paths.progress, logs.record(1).model_copy(update={"own_tests": (said,)}))
    found = texts(shown(page, "Clients"))
    assert "Numbers of examples are declared by the clients" in found
    assert "Whom the federation helped" in found
    assert "−0.500" in found
