"""The dashboard shows what was asked about a finished run, the audit beside it, and the plan that was made for it."""

import pytest

from fccl.records.after import WhatIsLeft
from fccl.records.audit import Attack, Audit, AuditedRun, Membership
from fccl.records.evaluation import Estimate
from fccl.records.forecast import Usage
from tests.pages.script import shown, texts
from tests.view.logs import Logs
from tests.view.test_after import check, forgotten, influence, replay
from tests.view.test_forecast_tables import FORECAST


@pytest.fixture
def logs(tmp_path):
    made = Logs(tmp_path / "logs").begin()
    made.round(0)
    return made


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value.model_dump_json())


def test_before_anybody_asks_it_says_what_can_be_asked(page, logs):
    found = texts(shown(page, "After"))
    assert "Nothing was asked about this run yet" in found


def test_influence_replays_the_check_and_clients_that_were_taken_out_are_there(page, logs):
    run_id = logs.run_id
    after = logs.paths.after(run_id)
    left = WhatIsLeft(model="without the client", phase="sft", examples=7, loss=2.125)
    answers = {
        after.influence: influence(0.1, 0.7),
        after.check: check("ok"),
        after.record(after.replay("a")): replay(without=(1,)),
        after.record(after.forgotten(1)): forgotten(left, removed=("kept/update_1",)),
    }
    for path, value in answers.items():
        write(path, value.model_copy(update={"run_id": run_id}))
    found = texts(shown(page, "After"))
    assert "Influence on preference pairs" in found
    assert "without client 1" in found
    assert "checks hold" in found
    assert "What is left of client 1" in found
    assert "2.125" in found


def test_an_answer_about_another_run_is_not_shown(page, logs):
    write(logs.paths.after(logs.run_id).influence, influence(0.1, 0.7).model_copy(update={"run_id": "another"}))
    assert "Nothing was asked about this run yet" in texts(shown(page, "After"))


def test_audit_and_plan_stand_beside_the_evaluation(page, logs):
    told = Membership(auc=Estimate(value=0.875, low=0.8, high=0.95, n=400), found=0.25, members=200, others=200)
    attack = Attack(target="update of round 1", by="loss", membership=told)
    audited = AuditedRun(name="none", attacks=(attack,), closed=("updates: masked",))
    audit = Audit(created=1.0, client=2, canaries=32, unused=1000, rounds=1, settings={}, runs=(audited,))
    write(logs.paths.audit, audit)
    write(logs.paths.plan, FORECAST)
    write(logs.paths.usage, Usage(run_id=logs.run_id, evaluation=4.0, server=80))
    found = texts(shown(page, "Evaluation"))
    assert "0.875" in found or "0.88" in found
    assert "25.0 %" in found
    assert "Not tried, protection none: updates: masked." in found
    assert "Predicted and actual" in found
