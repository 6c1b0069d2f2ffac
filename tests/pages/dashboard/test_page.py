"""The page without a browser: what each panel says of the logs of a run."""

import logging
import os
import re
import shutil
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from fccl.pages.dashboard.page import TABS
from fccl.paths import ExchangePaths
from fccl.storage.files import write_text
from fccl.transports.exchange.quarantine import Quarantine
from tests.compare.made_up import comparison
from tests.pages.script import charts, figures, script, sentence, shown, table, texts
from tests.view import histories
from tests.view import logs as logs_module
from tests.view.logs import Logs

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def began(monkeypatch):
    """When the runs of a test began: their third round was complete ten seconds ago."""
    began = time.time() - 3 * logs_module.ROUND_S - 10
    monkeypatch.setattr(logs_module, "BEGAN", began)
    return began


@pytest.fixture
def logs(tmp_path):
    """Three clients, three of four rounds complete; client 2 was excluded from the second."""
    logs = Logs(tmp_path / "logs").begin(
        contribution_mode="cognitive", contribution_source="data_size", contribution_temperature=1.0
    )
    for number, excluded in enumerate(((), (2,), ())):
        logs.round(number, excluded=excluded)
    return logs


# --- there is no run


@pytest.mark.parametrize("there", [True, False])
def test_without_a_run_it_says_where_it_looks_and_how_one_begins(page, tmp_path, there):
    if there:
        (tmp_path / "logs").mkdir()
    shown(page)
    assert sentence(page) == "No run in logs/ yet."
    assert str(tmp_path / "logs") in texts(page)
    assert ("holds no run so far" if there else "does not exist yet") in texts(page)
    assert "fccl orchestrator" in texts(page)
    assert not page.tabs


def test_a_file_in_the_place_of_the_folder_is_no_run(page, tmp_path):
    write_text(tmp_path / "logs", "not a folder")
    assert sentence(shown(page)) == "No run in logs/ yet."


def test_a_run_that_starts_later_appears_and_another_one_follows_it(page, tmp_path, began):
    shown(page)
    logs = Logs(tmp_path / "logs").begin()
    assert sentence(shown(page)) == "Round 1 of 4, instruction phase, 0 of 3 clients done."
    logs.event("finished", began, round=4)
    assert sentence(shown(page)).startswith("Finished")
    shutil.rmtree(logs.root)
    Logs(tmp_path / "logs", run_id="another").begin()
    assert "another" in texts(shown(page))
    shutil.rmtree(logs.root)
    assert sentence(shown(page)) == "No run in logs/ yet."


# --- the figures


def test_the_header_in_the_preference_phase(page, logs):
    logs.beat(0, "training", 3, time.time(), step=3, steps=8, loss=0.25, tokens_per_second=1234.5, host="here", pid=77)
    shown(page)
    assert sentence(page).startswith("Round 4 of 4, preference phase, 0 of 3 clients done")
    found = figures(page)
    assert found["Validation preference loss"] == ("2.000", "1.307")  # 3 - 0.5 · 2, less log 2
    assert found["Preference accuracy"] == ("75.0 %", "")
    assert found["Effective clients"] == ("3.0 of 3", "")
    assert found["Clients done"][0] == "0 of 3"
    assert "1 training" in found["Clients done"][1]


def test_the_header_in_the_instruction_phase(page, tmp_path):
    logs = Logs(tmp_path / "logs").begin()
    assert figures(shown(page))["Validation loss of the base"] == ("6.500", "")
    logs.round(0)
    assert figures(shown(page))["Validation loss"] == ("3.000", "-3.5")
    assert figures(page)["Preference accuracy"] == ("–", "")


def test_a_finished_run_without_its_evaluation_says_so(page, logs, began):
    logs.round(3)
    logs.event("finished", began + 400, round=4)
    assert sentence(shown(page)) == "Finished: all 4 rounds complete."
    info = logs.paths.run.read_text()
    write_text(logs.paths.run, info.replace('"num_clients"', '"evaluate":"True","num_clients"'))
    assert sentence(shown(page)) == "Finished: all 4 rounds complete. The evaluation is not there yet."
    write_text(logs.paths.evaluation_json, histories.evaluation().model_dump_json())
    assert sentence(shown(page)) == "Finished: all 4 rounds complete."


def test_a_failed_run_gives_its_reason(page, logs, began):
    logs.event("failed", began + 350, round=3, message="round 4 has 1 good update")
    assert sentence(shown(page)) == "Failed, with 3 of 4 rounds complete: round 4 has 1 good update"
    assert figures(page)["Time"] == ("5 min 50 s", "")
    assert "fccl run --resume" in texts(page)


def test_who_was_left_out_of_the_last_round_is_told_at_once(page, tmp_path):
    logs = Logs(tmp_path / "logs").begin()
    logs.round(0, excluded=(1,))
    assert "! Client 1 was excluded from round 1: no answer" in texts(shown(page))


# --- the tabs


def test_the_overview_has_the_losses_the_clients_and_the_weights(page, logs):
    logs.beat(1, "training", 3, time.time(), step=3, steps=8, loss=0.25, tokens_per_second=1234.5)
    shown(page)
    assert charts(page) == 4
    row = table(page, "state", "last heard").iloc[1]
    assert (row["client"], row["state"], row["step"]) == (1, "▶ training", "3 of 8")
    assert re.fullmatch(r"\d s ago", row["last heard"])


def test_the_phase_follows_the_run_until_somebody_chooses_one(page, tmp_path):
    logs = Logs(tmp_path / "logs").begin()
    logs.round(0)
    logs.round(1)
    assert not shown(page).button_group
    logs.round(2)
    assert shown(page).button_group(key="phase").value == "va"
    page.button_group(key="phase").set_value("sft").run()
    logs.round(3)
    assert shown(page).button_group(key="phase").value == "sft"


def test_influence_gives_the_last_round_in_figures(page, logs):
    shown(page, "Influence")
    assert charts(page) == 5
    assert "softmax of the scores, at temperature 1.0. Scores: samples (CONTRIBUTION_SOURCE=data_size)." in texts(page)
    found = table(page, "weight", "share of samples")
    assert found["weight"].round(1).tolist() == [33.3, 33.3, 33.3]
    assert found["share of samples"].round(1).tolist() == [16.7, 33.3, 50.0]
    assert found["gain"].round(1).tolist() == [16.7, 0.0, -16.7]


def test_clients_gives_host_process_exclusions_and_trainings(page, logs):
    logs.beat(
        2, "training", 3, time.time(), host="somewhere", pid=77, step=3, steps=8, loss=0.25, tokens_per_second=1234.5
    )
    shown(page, "Clients")
    row = table(page, "state", "last heard").iloc[2]
    assert row[["round", "step", "loss", "tokens/s", "host", "process"]].tolist() == [
        4,
        "3 of 8",
        0.25,
        1234,
        "somewhere",
        77,
    ]
    found = table(page, "reason")
    assert found.to_dict("records") == [{"round": 2, "phase": "FedIT (SFT)", "client": 2, "reason": "no answer"}]
    trained = table(page, "update norm")
    assert len(trained) == 8
    assert trained.iloc[0]["round"] == 3


def test_a_client_whose_heartbeat_stopped_is_marked(page, logs, tmp_path):
    (tmp_path / "exchange").mkdir()
    logs.beat(0, "training", 3, time.time(), folder=tmp_path / "exchange")
    logs.beat(1, "training", 3, time.time() - 500, folder=tmp_path / "exchange", step=3, steps=8)
    shown(page)
    assert table(page, "state")["state"].tolist()[:2] == ["▶ training", "✕ no heartbeat"]
    assert re.search(r"✕ Client 1: no heartbeat for 8 min \d+ s, last seen in round 4 at step 3 of 8", texts(page))
    assert "1 without heartbeat" in figures(page)["Clients done"][1]


def test_evaluation_waits_and_then_shows_every_figure_with_its_interval(page, logs):
    assert "appears when the run is finished" in texts(shown(page, "Evaluation"))
    write_text(logs.paths.evaluation_json, histories.evaluation().model_dump_json())
    said = texts(shown(page, "Evaluation"))
    assert charts(page) == 3
    for part in (
        "90 instructions and 80 pairs",
        "11.11 ★ [10.00 to 12.22]",
        "SFT against base",
        "0.500 [0.400 to 0.600] ▲ better",
        "Birds fly.",
    ):
        assert part in re.sub(r"\s+", " ", said)
    assert [each.label for each in page.expander] == ["Response perplexity by topic"]


def test_exchange_counts_what_is_there_and_what_was_refused(page, logs, tmp_path):
    assert "does not exist" in texts(shown(page, "Exchange"))
    paths = ExchangePaths(tmp_path / "exchange")
    for path in (
        paths.global_adapter(3),
        paths.task(3),
        paths.phase(3),
        paths.update(0, 3),
        paths.contribution(0, 3),
        paths.flag(0, 3),
        paths.update(1, 3),
    ):
        write_text(path, "x" * 100)
    write_text(paths.global_adapter(2), "x" * 2000)
    write_text(paths.root / "client_1_round_1.safetensors.bak", "")
    write_text(paths.update(2, 3), "broken")
    Quarantine(paths).refuse([paths.update(2, 3)], "not an adapter", "run", 3, 2)
    shown(page, "Exchange")
    rounds = table(page, "global adapter", "updates")
    assert rounds["round"].tolist() == [4, 3]
    assert rounds.iloc[0][["phase", "updates", "flags", "size"]].tolist() == ["✓ there", "2 of 3", "1 of 3", "700 B"]
    assert rounds.iloc[1][["phase", "updates"]].tolist() == ["– missing", "0 of 3"]
    answers = table(page, "answer")
    assert answers[["client", "flag", "answer"]].values.tolist() == [
        [0, "✓ 100 B", "✓ complete"],
        [1, "– not yet", "… in writing"],
    ]
    assert table(page, "reason", "files").iloc[0][["round", "client", "reason"]].tolist() == [4, "2", "not an adapter"]
    assert "client_1_round_1.safetensors.bak" in texts(page)


def test_data_shows_topics_sources_and_settings(page, logs):
    assert "no manifest" in texts(shown(page, "Data"))
    write_text(logs.paths.manifest, histories.manifest(noisy=(1,)).model_dump_json())
    shown(page, "Data")
    assert charts(page) == 2
    assert "Spoilt on purpose (shuffled): client 1." in texts(page)
    assert table(page, "source")["train"].tolist() == [700, 500]
    settings = table(page, "setting", "value").set_index("setting")["value"]
    assert settings["NUM_CLIENTS"] == "3"


def test_the_log_is_shown_newest_first_and_filtered(page, logs):
    shown(page, "Log")
    lines = page.code[0].value.split("\n")
    assert len(lines) == 4
    assert '"round":2' in lines[0]
    page.text_input(key="filter").set_value('"EXCLUDED":[{')
    assert len(shown(page).code[0].value.split("\n")) == 1
    page.text_input(key="filter").set_value("nowhere")
    assert "No line of progress.jsonl contains “nowhere”." in texts(shown(page))
    page.text_input(key="filter").set_value('"client_id":2')
    page.button_group(key="log").set_value("client_metrics")
    assert len(shown(page).code[0].value.split("\n")) == 2


def test_a_very_long_line_is_cut(page, tmp_path):
    logs = Logs(tmp_path / "logs").begin()
    logs.event("failed", 1.0, message="x" * 5000)
    first = shown(page, "Log").code[0].value.split("\n")[0]
    assert len(first) < 2100
    assert re.search(r" … and 3,\d\d\d characters more$", first)


def test_half_a_line_and_a_strange_line_change_nothing(page, logs):
    with open(logs.paths.progress, "ab") as file:
        file.write(b'not a record\n{"event":"round","run_id":"ru')
    assert sentence(shown(page)).startswith("Round 4 of 4")
    assert "1 line of both logs could not be read." in texts(shown(page, "Log"))


# --- several runs


@pytest.fixture
def two_runs(logs, began):
    earlier = Logs(logs.paths.archive / "earlier", run_id="earlier", fed_rounds=1).begin(seed=7)
    earlier.round(0)
    earlier.event("interrupted", began + 110, round=1)
    return logs


def test_one_run_needs_no_picker(page, logs):
    assert not shown(page).selectbox
    assert [tab.label for tab in page.tabs] == [name for name in TABS if name not in ("Methods", "Two runs")]


def test_an_earlier_run_can_be_chosen_and_stays_chosen(page, two_runs):
    shown(page)
    assert page.selectbox(key="run").options == ["The current run", "earlier"]
    page.selectbox(key="run").set_value("earlier")
    assert sentence(shown(page)) == "Interrupted, with 1 of 2 rounds complete."
    two_runs.round(3)
    assert sentence(shown(page)) == "Interrupted, with 1 of 2 rounds complete."


def test_two_runs_beside_each_other(page, two_runs):
    shown(page)
    page.selectbox(key="other").set_value("earlier").run()
    shown(page)
    assert page.session_state["tab"] == "Two runs"
    assert charts(page) == 2
    said = texts(page)
    for part in ("interrupted", "1 of 2", "3 of 4", "FED_ROUNDS", "SEED"):
        assert part in said


def test_a_chosen_run_that_is_deleted_gives_way_to_the_current_one(page, two_runs):
    shown(page)
    page.selectbox(key="run").set_value("earlier")
    shown(page)
    shutil.rmtree(two_runs.paths.archive)
    assert sentence(shown(page)).startswith("Round 4 of 4")


# --- what must not happen


def test_a_panel_that_fails_is_one_line_and_the_others_go_on(page, logs, monkeypatch):
    from fccl.view import charts as drawn

    def broken(*_):
        raise ZeroDivisionError("of no interest to a reader")

    terminal = StringIO()
    monkeypatch.setattr(logging.getLogger("fccl.dashboard"), "handlers", [logging.StreamHandler(terminal)])
    monkeypatch.setattr(drawn, "weights_area", broken)
    page.run()
    assert not page.exception
    assert [each.value for each in page.warning] == [
        "FCCL weights cannot be shown just now. The terminal of the dashboard says why."
    ]
    assert charts(page) == 3
    assert "ZeroDivisionError" in terminal.getvalue()


def test_a_wrong_setting_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path / ".env", "LOG_DIRR=elsewhere\n")
    page = AppTest.from_function(script, args=(str(tmp_path),), default_timeout=60).run()
    assert not page.exception
    assert len(page.error) == 1
    assert "unknown setting" in page.error[0].value.replace("\\", "")


def test_the_folders_come_from_the_environment_and_from_arguments(tmp_path, monkeypatch):
    logs = Logs(tmp_path / "mine" / "logs").begin()
    monkeypatch.setenv("LOG_DIR", str(logs.root))
    page = AppTest.from_file(str(ROOT / "dashboard.py"), default_timeout=60)
    monkeypatch.setattr(sys, "argv", ["dashboard.py"])
    assert sentence(shown(page)).startswith("Round 1 of 4")
    monkeypatch.setattr(sys, "argv", ["dashboard.py", "--log-dir", str(tmp_path / "none")])
    assert sentence(shown(page)) == "No run in none/ yet."


def test_the_page_loads_no_torch(tmp_path):
    """In a process of its own: other tests have loaded it here."""
    logs = Logs(tmp_path / "logs").begin()
    logs.round(0)
    write_text(logs.paths.evaluation_json, histories.evaluation().model_dump_json())
    write_text(logs.paths.manifest, histories.manifest().model_dump_json())
    write_text(logs.paths.compare.results, comparison().model_dump_json())
    code = f"""
import sys
from streamlit.testing.v1 import AppTest
from tests.pages.script import script
page = AppTest.from_function(script, args=({str(tmp_path)!r},), default_timeout=60)
for tab in {list(TABS)!r}:
    page.session_state["tab"] = tab
    page.run()
    assert not page.exception and not page.warning and len(page.tabs) == {len(TABS) - 1}
sys.exit(3 if {{"torch", "transformers", "peft"}} & set(sys.modules) else 0)
"""
    assert (
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False
        ).returncode
        == 0
    )


def test_many_clients_are_a_band_and_some_can_be_picked_out(page, tmp_path):
    logs = Logs(tmp_path / "logs", clients=20).begin()
    logs.round(0)
    shown(page)
    assert page.multiselect(key="picked").options == [str(number) for number in range(20)]
    page.multiselect(key="picked").set_value([3, 5])
    assert charts(shown(page)) == 3
    logs.beat(15, "failed", 1, time.time())
    assert table(shown(page), "state").iloc[0][["client", "state"]].tolist() == [15, "! failed"]
