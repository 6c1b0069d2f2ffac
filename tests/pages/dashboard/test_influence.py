"""What the page shows of verification and of the aggregation, in runs that have them."""

import pytest

from fccl.contribution.rules import RULES
from fccl.pages.dashboard import influence
from fccl.records.run import Verification
from fccl.view import sentences
from tests.pages.script import charts, shown, table, texts
from tests.view.logs import Logs

VERIFIED = Verification(examples=32, prior=(0.2, 0.3, 0.5), loss_prior=0.5, loss_weights=0.4, seconds=2.5)


def run(tmp_path, source, settings=(("learn_examples", 48),), **changes):
    """A run of three complete rounds whose records say `changes`."""
    logs = Logs(tmp_path / "logs").begin(
        contribution_mode="cognitive", contribution_source=source, verify_temperature=0.5, **dict(settings)
    )
    for number in range(3):
        logs.append(logs.paths.progress, logs.record(number).model_copy(update=changes))
        logs.commit(number + 1)


def test_what_the_server_verified_stands_beside_the_prior(page, tmp_path):
    run(tmp_path, "verified", verification=VERIFIED)
    shown(page, "Influence")
    assert charts(page) == 5 + 3
    said = texts(page)
    assert (
        "In every round the server measures the loss on 32 examples of its learn split and moves the weights from "
        "the prior" in said
    )
    assert (
        "Round 3: 0.500 with the prior, 0.400 with the verified weights (nats per pair); verifying took 2.5 s of its "
        "100.0 s." in said
    )
    found = table(page, "weight", "prior")
    assert found["prior"].tolist() == [20, 30, 50]
    assert found["weight"].round(1).tolist() == [33.3] * 3
    assert "Prior: the weight before the server verified." in said
    assert "counted" not in found


def test_a_prior_without_a_finite_loss_says_so(page, tmp_path):
    run(tmp_path, "verified", verification=VERIFIED.model_copy(update={"loss_prior": None}))
    said = texts(shown(page, "Influence"))
    assert "Round 3: no finite loss with the prior, 0.400 with the verified weights" in said
    assert "No loss was finite." in said
    assert charts(page) == 5 + 2


def test_what_the_rule_remembers_of_clients_is_drawn_explained_and_in_the_table(page, tmp_path):
    run(tmp_path, "tempered", verification=VERIFIED.model_copy(update={"standing": (0.0, 0.5, 2.5)}))
    shown(page, "Influence")
    assert charts(page) == 5 + 3 + 1
    assert table(page, "weight", "standing")["standing"].tolist() == [0.0, 0.5, 2.5]
    said = texts(page)
    assert sentences.STANDING in said
    assert "Standing: the standard errors by which" in said


def test_a_source_without_a_prior_shows_what_it_took_in_a_run_of_version_0_1_too(page, tmp_path):
    run(tmp_path, "validation_loss", (), verification=Verification(examples=7, seconds=0.25))
    said = texts(shown(page, "Influence"))
    assert charts(page) == 5 + 1
    assert "the loss on 7 examples of its validation split of each update on its own" in said
    assert "Round 3: verifying took 0.2 s of its 100.0 s." in said
    assert "prior" not in table(page, "weight", "share of samples")


def test_the_error_of_averaging_factors_is_drawn_and_explained(page, tmp_path):
    run(tmp_path, "data_size", lora_error=0.25)
    said = texts(shown(page, "Influence"))
    assert charts(page) == 5 + 1
    assert "The mean of the factors A and B is not the mean of the products" in said


def test_how_much_an_update_counted_in_the_end(page, tmp_path):
    run(tmp_path, "data_size", aggregation="krum", counted=(0.0, 1.0, 0.0))
    said = texts(shown(page, "Influence"))
    assert table(page, "weight", "counted")["counted"].tolist() == [0, 100, 0]
    assert "Aggregation: krum (AGGREGATION)." in said
    assert "Counted: how much the update counted in the end" in said


@pytest.mark.parametrize("source", ["data_size", "verified"])
def test_a_run_without_these_figures_has_no_empty_panel(page, tmp_path, source):
    run(tmp_path, source)
    said = texts(shown(page, "Influence"))
    assert charts(page) == 5
    assert not [
        words
        for words in ("Verified by the server", "Averaging LoRA", "Prior:", "Counted:", "Standing:", "Aggregation:")
        if words in said
    ]
    assert not {"prior", "counted", "standing"} & set(table(page, "weight", "share of samples").columns)


def test_before_the_first_round_it_only_waits(page, tmp_path):
    Logs(tmp_path / "logs").begin(contribution_source="verified")
    said = texts(shown(page, "Influence"))
    assert charts(page) == 0
    assert "Verified by the server" not in said
    assert sentences.STANDING not in said


@pytest.mark.parametrize("source", RULES)
def test_every_source_is_told_in_words_and_a_temperature_only_where_it_has_one(source):
    has_temperature = {"contribution_temperature", "verify_temperature"} & RULES[source].settings
    assert (source in sentences.NO_SOFTMAX) != (source in influence.SOURCES)
    assert (source in sentences.NO_SOFTMAX) == (not has_temperature)
    if has_temperature:
        assert sentences.temperature_of(source) in has_temperature


@pytest.mark.parametrize("source", [*RULES, "mine.rules:Rule"])
def test_weights_are_called_a_softmax_only_where_they_are_one(page, tmp_path, source):
    run(tmp_path, source)
    said = texts(shown(page, "Influence"))
    is_softmax = "contribution_temperature" in RULES[source].settings if source in RULES else False
    assert ("the weights are the softmax of the scores" in said) == is_softmax
    assert ("a weight is the prior times" in said) == (source in sentences.PRIOR_SOURCES)
    assert ("a class of your own" in said) == (source not in RULES)
