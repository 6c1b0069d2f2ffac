"""How the dashboard writes figures and states."""

import dataclasses

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.contribution.rules import RULES
from fccl.display import words
from fccl.records.run import ClientStatus, RunInfo
from fccl.view import sentences
from fccl.view.values import ClientRow, RunStatus


def a_status(**changes):
    rows = tuple(
        ClientRow(number, standing, None, None) for number, standing in enumerate(("done", "training", "dead"))
    )
    usual = {
        "standing": "running",
        "message": "",
        "phase": "va",
        "round": 2,
        "total_rounds": 6,
        "progress": 0.4,
        "seconds_left": 21.0,
        "clients": rows,
        "validation_loss": 0.5,
        "validation_phase": "va",
        "preference_accuracy": 0.9,
        "base_loss": 6.5,
        "effective_clients": 2.8,
        "aggregated": 3,
    }
    return RunStatus(**(usual | changes))


# --- numbers


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (8.4, "8 s"),
        (59.6, "1 min"),
        (80, "1 min 20 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (3 * 86400 + 4 * 3600, "3 d 4 h"),
        (None, "–"),
        (float("nan"), "–"),
    ],
)
def test_durations(seconds, said):
    assert words.duration(seconds) == said


def test_ages_stand_still():
    assert [words.ago(age) for age in (None, 3.2, 75.0, 3700.0)] == ["never", "3 s ago", "1 min ago", "1 h ago"]


UNITS = {"d": 86400, "h": 3600, "min": 60, "s": 1}


@given(st.floats(min_value=0, max_value=1e9))
def test_a_duration_is_right_to_its_smaller_unit(seconds):
    parts = words.duration(seconds).split()
    said = sum(int(number) * UNITS[unit] for number, unit in zip(parts[::2], parts[1::2], strict=True))
    smaller = {"d": 3600, "h": 60, "min": 1, "s": 1}[parts[1]]
    assert 0 <= round(seconds) - said < smaller


@given(st.floats(min_value=0, max_value=1e7))
def test_an_estimate_is_close_and_never_nothing(seconds):
    parts = words.about(seconds).removeprefix("about ").split()
    said = sum(int(number) * UNITS[unit] for number, unit in zip(parts[::2], parts[1::2], strict=True))
    assert said >= 5
    assert abs(said - seconds) <= max(5, 0.05 * seconds) + 60 * (seconds >= 3600) + 3600 * (seconds >= 86400)


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (272_771, "273 kB"), (2_700_000, "2.7 MB"), (5e9, "5.0 GB")],
)
def test_sizes(count, said):
    assert words.size(int(count)) == said


def test_losses_have_three_decimals_and_percentages_one():
    assert words.loss(0.4311) == "0.431"
    assert words.loss(1234.5) == "1,234.500"
    assert sentences.percent(0.9895) == "99.0 %"
    assert words.effective(2.84, 3) == "2.8 of 3"
    assert words.loss(None) == sentences.percent(float("nan")) == words.effective(None, 3) == words.DASH


# --- the sentence


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "Round 3 of 6, preference phase, 1 of 3 clients done, about 20 s left."),
        ({"phase": "sft", "seconds_left": None}, "Round 3 of 6, instruction phase, 1 of 3 clients done."),
        ({"clients": ()}, "Round 3 of 6, preference phase, about 20 s left."),
        ({"phase": "done", "round": 6}, "All 6 rounds complete; evaluating on the test split."),
        ({"standing": "finished", "round": 6}, "Finished: all 6 rounds complete."),
        ({"standing": "interrupted"}, "Interrupted, with 2 of 6 rounds complete."),
        ({"standing": "failed", "message": "too few clients"}, "Failed, with 2 of 6 rounds complete: too few clients"),
        ({"standing": "failed"}, "Failed, with 2 of 6 rounds complete."),
        ({"standing": "silent"}, "Nothing heard for 1 min 5 s, with 2 of 6 rounds complete."),
        ({"standing": "waiting"}, "No run in logs/ yet."),
    ],
)
def test_the_state_of_a_run_is_one_sentence(changes, said):
    assert sentences.sentence(a_status(**changes), "logs/", 65.0) == said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "3/6 · FCCL"),
        ({"phase": "done", "round": 6}, "▶ running · FCCL"),
        ({"standing": "failed"}, "! failed · FCCL"),
    ],
)
def test_the_tab_of_the_browser_says_it_too(changes, said):
    assert sentences.title(a_status(**changes)) == said


def test_a_long_reason_is_cut_and_stays_one_line():
    said = sentences.sentence(a_status(standing="failed", message="a\nb\x1b " + "x" * 5000), "logs/")
    assert said.startswith("Failed, with 2 of 6 rounds complete: a b\\x1b xxx")
    assert said.endswith("xxx …")
    assert len(said) < 300


def test_what_clients_do_begins_with_what_presses():
    assert sentences.client_counts(a_status()) == "1 without heartbeat, 1 training"
    assert sentences.client_counts(a_status(clients=())) == ""


def test_every_state_has_a_symbol_and_a_word():
    """Nothing is told by colour alone."""
    for said in (*sentences.CLIENT_WORDS.values(), *sentences.STANDING_WORDS.values()):
        symbol, word = said.split(" ", 1)
        assert not symbol.isalnum()
        assert word.replace(" ", "").isalpha()
    assert len({said[0] for said in sentences.CLIENT_WORDS.values()}) == len(sentences.CLIENT_WORDS)


def test_every_standing_of_a_client_is_counted():
    status = ClientStatus(client_id=0, state="idle", run_id="", round=0, phase="sft")
    for standing in set(sentences.CLIENT_WORDS) - {"done"}:
        row = ClientRow(0, standing, status, 1.0)
        assert sentences.client_counts(dataclasses.replace(a_status(), clients=(row,))).startswith("1 ")


def test_who_declines_what_is_said_for_each_phase():
    rows = [(0, "sft", 2), (1, "sft", 2), (2, "va", 0), (2, "va", 1), (3, "va", 0)]
    said = sentences.declines(pd.DataFrame(rows, columns=["round", "phase", "client"]))
    assert said == "Client 2 declines FedIT: nobody waits for that. Clients 0, 1 decline FedVA: nobody waits for that."
    many = pd.DataFrame([(0, "va", client) for client in range(30)], columns=["round", "phase", "client"])
    assert sentences.declines(many).startswith("Clients 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and more decline FedVA")
    assert sentences.declines(many.head(0)) == ""


def ruled_by(source, mode="cognitive"):
    """What a run of this rule wrote down."""
    settings = {"contribution_mode": mode, "contribution_source": source}
    return RunInfo(run_id="r", created=0.0, settings=settings, data_sha256="", versions={})


@pytest.mark.parametrize("source", RULES)
def test_scores_are_called_the_softmaxs_only_where_weights_are_their_softmax(source):
    said = sentences.scores_of(ruled_by(source))
    assert ("softmax" in said) == ("contribution_temperature" in RULES[source].settings)
    assert ("prior" in said) == (source in sentences.PRIOR_SOURCES)


@pytest.mark.parametrize(
    "info", [None, ruled_by("data_size", "uniform"), ruled_by("data_size", "fedavg"), ruled_by("mine.rules:Rule")]
)
def test_scores_of_a_run_without_a_source_or_by_a_class_of_ones_own_are_not_called_the_softmaxs(info):
    assert "softmax" not in sentences.scores_of(info)
