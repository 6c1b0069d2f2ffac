"""Late updates on every screen: for which round each was trained, in which it counted, and for how much."""

from fccl import phases
from fccl.records.late import LateUpdate
from fccl.view.late import late_table
from fccl.view.runs import RunReader


def test_the_newest_late_update_comes_first_with_both_rounds_and_its_weight(logs):
    logs.begin()
    logs.append(logs.paths.progress, logs.record(0))
    for number, late in ((1, 2), (3, 0)):
        record = logs.record(number).model_copy(update={"late": (LateUpdate(client_id=late, round=number - 1),)})
        logs.append(logs.paths.progress, record)
    logs.commit(4)
    table = late_table(RunReader(logs.paths).refresh())
    assert [[cell.text for cell in row] for row in table.cells] == [
        ["0", phases.title("va"), "3", "4", "0.333"],
        ["2", phases.title("sft"), "1", "2", "0.333"],
    ]
    assert "another run of these settings has other bytes" in table.note


def test_one_that_came_and_was_excluded_has_no_weight(logs):
    logs.begin()
    logs.append(logs.paths.progress, logs.record(0))
    late = {"late": (LateUpdate(client_id=1, round=0),)}
    logs.append(logs.paths.progress, logs.record(1, excluded=(1,)).model_copy(update=late))
    logs.commit(2)
    assert late_table(RunReader(logs.paths).refresh()).cells[0][4].text == "excluded"


def test_a_run_in_which_nothing_was_late_has_no_table(logs):
    logs.begin()
    logs.round(0)
    assert late_table(RunReader(logs.paths).refresh()) is None
