"""The report's section on what was asked after the run."""

from fccl.pages.report.answers import section
from fccl.pages.report.figures import Figures
from fccl.view.answers import RunAnswers
from tests.view.test_after import check, influence, replay


def test_a_chart_for_each_loss_and_every_table():
    answers = RunAnswers(influence=influence(0.1, 0.7), check=check("ok"), replays=(replay(without=(1,)),))
    found = section(answers, Figures())
    assert [figure.title for figure in found.figures] == ["Influence on preference pairs"]
    assert "A guess." in found.figures[0].says
    assert [table.title.split(":")[0] for table in found.tables] == [
        "Influence on preference pairs (nats/pair)",
        "Replay of run run",
        "Run run",
    ]


def test_without_influence_there_is_no_chart():
    assert section(RunAnswers(check=check("ok")), Figures()).figures == ()
