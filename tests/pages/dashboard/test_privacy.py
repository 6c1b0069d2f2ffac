"""The dashboard says what privacy is spent, and has nothing of it where a run has none."""

import pytest

from tests.apps.test_privacy import SAID
from tests.pages.script import shown, texts
from tests.view.logs import Logs


@pytest.fixture
def logs(tmp_path):
    return Logs(tmp_path / "logs").begin()


def test_overview_has_the_sentence_and_a_row_for_each_round_and_client(page, logs):
    logs.append(logs.paths.progress, logs.record(0).model_copy(update={"contributions": (), "privacy": SAID}))
    found = texts(shown(page, "Overview"))
    assert "Privacy spent" in found
    assert "a client's ε is at most 2.943" in found
    assert "1.993" in found


def test_noise_at_the_server_says_why_the_panels_by_client_are_empty(page, logs):
    empty = dict.fromkeys(("selected", "clients", "weights", "scores", "contributions"), ())
    said = SAID.model_copy(update={"where": "server", "clients": ()})
    logs.append(logs.paths.progress, logs.record(0).model_copy(update=empty | {"privacy": said}))
    assert "nothing of a single client is written down" in texts(shown(page, "Overview"))
    assert "Privacy spent" in texts(shown(page, "Overview"))


def test_a_run_without_differential_privacy_has_no_such_panel(page, logs):
    logs.round(0)
    assert "Privacy spent" not in texts(shown(page, "Overview"))
