import math
import re

import pytest

from fccl.records.run import ServerLearning, Verification
from fccl.tracking.figures import MARK, base_figures, evaluation_figures, hyper_parameters, round_figures, step_of
from tests.view.histories import evaluation
from tests.view.logs import BASE


def test_a_round_has_the_federations_figures_and_those_of_every_client(told):
    record, metrics = told.rounds()[2]
    figures = round_figures(record, metrics)
    assert figures["va/validation_loss"] == record.validation.loss
    assert figures["va/preference_accuracy"] == record.validation.preference_accuracy
    assert figures["round/effective_clients"] == record.effective_clients
    assert figures["round/update_norm"] == record.update_norm
    assert figures["round/seconds"] == record.seconds
    assert figures["round/tokens_per_second"] == sum(each.tokens for each in metrics) / record.seconds
    for client, weight, score, said, each in zip(
        record.clients, record.weights, record.scores, record.contributions, metrics, strict=True
    ):
        assert figures[f"weight/client_{client}"] == weight
        assert figures[f"score/client_{client}"] == score
        assert figures[f"loss_va/client_{client}"] == said.avg_loss
        assert figures[f"tokens_per_second/client_{client}"] == each.tokens_per_second
    assert step_of(record) == 3


def test_what_the_server_learned_from_is_a_figure_beside_what_it_ended_with(told):
    record, metrics = told.rounds()[0]
    said = ServerLearning(examples=3, epochs=1, steps=1, avg_loss=1.0, before=BASE, aggregate_sha256="", seconds=1.0)
    figures = round_figures(record.model_copy(update={"learning": said}), metrics)
    assert (figures["sft/aggregate_loss"], figures["sft/validation_loss"]) == (BASE.loss, record.validation.loss)
    assert "sft/aggregate_loss" not in round_figures(record, metrics)


def test_who_was_left_out_is_counted_and_has_no_figures(told):
    record, metrics = told.rounds()[1]
    figures = round_figures(record, metrics)
    assert (figures["round/clients"], figures["round/excluded"]) == (2, 1)
    assert not any(name.endswith("client_2") for name in figures)


def test_losses_of_the_phases_are_apart(told):
    names = [set(round_figures(*told.rounds()[number])) for number in (0, 2)]
    assert not {name for name in names[0] & names[1] if "loss" in name}


def test_what_the_server_verified_is_there(told):
    record, metrics = told.rounds()[0]
    seen = Verification(examples=32, loss_prior=0.7, loss_weights=0.6, slopes=(0.1,), seconds=0.5)
    figures = round_figures(record.model_copy(update={"verification": seen}), metrics)
    assert (figures["verification_sft/loss_prior"], figures["verification_sft/loss_weights"]) == (0.7, 0.6)


def test_every_name_is_one_that_trackers_take_and_every_figure_a_number(told):
    figures = base_figures(BASE) | evaluation_figures(evaluation(("base", "<script>", "SFT")))
    for record, metrics in told.rounds():
        figures |= round_figures(record, metrics)
        assert MARK in round_figures(record, metrics)
    for name, value in figures.items():
        assert re.fullmatch(r"[A-Za-z0-9_.\-]+/[A-Za-z0-9_.\-]+", name), name
        assert math.isfinite(value)


def test_the_evaluation_has_values_and_intervals():
    report = evaluation()
    figures = evaluation_figures(report)
    exact = report.models[1].exact
    assert [figures[f"evaluation_SFT/exact_answers{end}"] for end in ("", "_low", "_high")] == [
        exact.value,
        exact.low,
        exact.high,
    ]
    assert "evaluation_base/exact_answers" not in evaluation_figures(evaluation(exact=False))


def test_settings_are_numbers_where_they_are(told):
    assert hyper_parameters(told.info) == {
        "seed": 7.0,
        "model_name": "micro",
        "sft_lr": pytest.approx(0.004),
        "evaluate": "True",
        "noisy_clients": "",
    }
