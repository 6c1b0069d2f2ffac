"""What is said of a run that PATIENCE or RESULT_ROUND=best watches."""

import pytest

from fccl.records.run import PhaseEnd, Watched
from fccl.view.runs import RunReader
from fccl.view.watched import watched_words
from tests.view.logs import Logs


def watched_round(logs, number, waited, best=None, end=None):
    said = {"watched": Watched(gain=0.1, noise=0.2, waited=waited, best_round=best), "phase_end": end}
    logs.append(logs.paths.progress, logs.record(number).model_copy(update=said))


def ended(rounds, result, early):
    return PhaseEnd(rounds=rounds, early=early, result_round=result, adapter_sha256="a" * 64)


def words_of(logs):
    return watched_words(RunReader(logs.paths).refresh())


def test_a_run_that_nothing_watches_has_no_words(tmp_path):
    logs = Logs(tmp_path).begin(patience=0, result_round="last")
    logs.round(0)
    assert words_of(logs) is None


@pytest.mark.parametrize("settings", [{"patience": 3}, {"result_round": "best"}])
def test_before_its_first_round_a_watched_run_has_no_result(tmp_path, settings):
    said = words_of(Logs(tmp_path).begin(**settings))
    assert (said.phase, said.result, said.waited, said.ends) == ("", "–", "", ())


def test_the_last_round_is_the_result_under_patience_alone_and_the_best_one_where_it_is_kept(tmp_path):
    logs = Logs(tmp_path / "last", fed_rounds=4).begin(patience=3)
    watched_round(logs, 0, waited=0)
    watched_round(logs, 1, waited=1)
    said = words_of(logs)
    assert (said.phase, said.result, said.waited) == ("FedIT", "round 2", "1 of 3 rounds without a gain")
    logs = Logs(tmp_path / "best", fed_rounds=4).begin(result_round="best")
    watched_round(logs, 0, waited=0, best=0)
    watched_round(logs, 1, waited=1, best=0)
    assert (words_of(logs).result, words_of(logs).waited) == ("round 1", "")


def test_the_end_of_each_phase_stays_and_the_newest_phase_is_the_one_shown(tmp_path):
    logs = Logs(tmp_path, fed_rounds=2).begin(patience=1, result_round="best")
    watched_round(logs, 0, waited=0, best=0)
    watched_round(logs, 1, waited=1, best=0, end=ended(2, 0, early=True))
    assert words_of(logs).waited == "ended early, after 2 rounds"
    watched_round(logs, 2, waited=0, best=2, end=ended(1, 2, early=False))
    said = words_of(logs)
    assert (said.phase, said.result, said.waited) == ("FedVA", "round 3", "all rounds done")
    assert said.ends == (
        "FedIT ended early after 2 rounds; its result is round 1.",
        "FedVA ended as planned after 1 round; its result is round 3.",
    )
