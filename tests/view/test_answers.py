"""RunAnswers beside a run, found where they are, and nothing that is not one."""

from fccl.paths import LogPaths
from fccl.storage.files import write_text
from fccl.view.answers import RunAnswers, read_answers
from tests.view.test_after import check, influence, replay


def put(logs, run_id="run"):
    after = logs.after(run_id)
    write_text(after.influence, influence(0.1, 0.2).model_dump_json())
    write_text(after.check, check("ok").model_dump_json())
    for name in ("b", "a"):
        write_text(after.record(after.replay(name)), replay(without=(ord(name) - 97,)).model_dump_json())


def test_all_answers_are_found_replays_by_their_names(tmp_path):
    logs = LogPaths(tmp_path / "logs")
    put(logs)
    found = read_answers(logs, "run")
    assert found.any
    assert (found.influence, found.check) == (influence(0.1, 0.2), check("ok"))
    assert [each.without for each in found.replays] == [(0,), (1,)]


def test_so_they_are_when_the_run_has_moved_to_the_earlier_ones(tmp_path):
    logs = LogPaths(tmp_path / "logs")
    put(logs)
    assert read_answers(LogPaths(logs.archive / "run"), "run") == read_answers(logs, "run")


def test_answers_of_another_run_are_none(tmp_path):
    logs = LogPaths(tmp_path / "logs")
    put(logs, "other")
    assert read_answers(logs, "other") == RunAnswers(), "their records name another run"
    assert read_answers(logs, "run") == read_answers(logs, "") == read_answers(logs, "../run") == RunAnswers()


def test_what_is_no_answer_is_passed_over(tmp_path):
    logs = LogPaths(tmp_path / "logs")
    put(logs)
    write_text(logs.after("run").influence, "{")
    write_text(logs.after("run").check, "[]")
    found = read_answers(logs, "run")
    assert (found.influence, found.check, len(found.replays)) == (None, None, 2)
