import pytest

from fccl.records.evaluation import Difference, Estimate, TaskResult
from fccl.view import evaluation_tables as tables
from fccl.view.evaluation_markdown import to_markdown
from tests.view import histories


def estimate(value, n=30, spread=2.0):
    return Estimate(value=value, low=value / spread, high=value * spread, n=n)


@pytest.mark.parametrize(
    ("value", "text"), [(1.234, "1.23"), (99.99, "99.99"), (123.45, "123.5"), (12345.6, "12,346"), (2.5e7, "2.50e+07")]
)
def test_numbers_have_about_three_figures(value, text):
    assert tables.plain(value) == text


def figures(values, measure="perplexity", label="response perplexity"):
    """The row of one measure of models that have these values."""
    report = histories.evaluation(names=tuple(f"m{index}" for index in range(len(values))))
    report = report.model_copy(update={"comparisons": ()})
    models = tuple(
        model.model_copy(update={measure: value}) for model, value in zip(report.models, values, strict=True)
    )
    rows = tables.measures(report.model_copy(update={"models": models})).cells
    return next(row[1:] for row in rows if row[0].text == label)


def test_the_best_is_the_lowest_or_the_highest_where_it_is_told_apart_from_all_others():
    values = [estimate(3.0, spread=1.1), estimate(2.0, spread=1.1), estimate(2.1, spread=1.1)]
    assert not any(cell.strong for cell in figures(values))  # 2.0 and 2.1 may be the same
    assert [cell.strong for cell in figures(values, "margin", "mean margin")] == [True, False, False]
    assert [cell.strong for cell in figures(values[:2])] == [False, True]


def test_of_few_examples_none_is_best():
    values = [estimate(9.0, n=5, spread=1.1), estimate(2.0, n=5, spread=1.1)]
    assert not any(cell.strong for cell in figures(values))


@pytest.mark.parametrize(("verdict", "marked"), [("better", True), ("no significant difference", False)])
def test_the_paired_difference_decides_before_the_intervals(verdict, marked):
    """Two models may be told apart on the same examples though their intervals overlap, and the other way round."""
    report = histories.evaluation(names=("SFT", "FedVA"))
    (pair,) = report.comparisons
    change = pair.differences[0].model_copy(update={"verdict": verdict})
    report = report.model_copy(update={"comparisons": (pair.model_copy(update={"differences": (change,)}),)})
    rows = {row[0].text: row[1:] for row in tables.measures(report).cells}
    assert [cell.strong for cell in rows["response perplexity"]] in ([False, marked], [marked, False])


def test_what_was_not_measured_is_a_dash_and_never_the_best():
    cells = figures([estimate(0.5, spread=1.1), None, estimate(0.25, spread=1.1)], "exact", "exact answers")
    assert [(cell.text, cell.strong) for cell in cells] == [("50.0 %", True), ("–", False), ("25.0 %", False)]


def test_where_all_look_alike_none_is_best():
    assert not any(cell.strong for cell in figures([estimate(2.0), estimate(2.001)]))


def test_one_example_has_no_interval():
    one, many = figures([estimate(0.5, n=1), estimate(0.5)], "exact", "exact answers")
    assert (one.text, one.interval) == ("50.0 %", "")
    assert many.interval == "25.0 to 100.0 %"


def test_a_report_without_pairs_topics_and_clients_has_tables_without_rows():
    report = histories.evaluation(names=("base",))
    assert tables.differences(report).rows == ()
    bare = report.model_copy(update={"models": (report.models[0].model_copy(update={"topics": (), "flaws": ()}),)})
    assert tables.details(bare) == ()


def with_tasks(report, **changes):
    """A report of two models with one task of others, of which the second model is better."""
    change = Difference(measure="acc", kind="points", estimate=estimate(0.25), verdict="better")
    usual = {"task": "words | <b>", "version": "1.0", "shots": 0, "measure": "acc", "higher_is_better": True}
    figures = {"estimates": (estimate(0.5), estimate(0.75)), "differences": (change,)}
    return report.model_copy(update={"tasks": (TaskResult(**{**usual, **figures, **changes}),)})


def test_tasks_of_others_have_a_row_a_measure_and_say_what_is_better():
    report = with_tasks(histories.evaluation(names=("base", "SFT")), shots=5)
    ((name, *cells),) = tables.tasks(report).cells
    assert (name.text, name.note) == ("words | <b>", "acc, n = 30, 5 in the prompt")
    assert [(cell.text, cell.strong) for cell in cells] == [("50.0 %", False), ("75.0 %", True)]
    ((_, change),) = tables.task_differences(report).cells
    assert (change.text, change.verdict) == ("+25.0", "better")
    assert {tables.tasks(report), tables.task_differences(report)} <= set(tables.details(report))
    assert "<b>" not in to_markdown(report), "a name is text, whoever gave it"


def test_of_a_perplexity_the_lowest_is_the_best():
    report = histories.evaluation(names=("base", "SFT"))
    found = with_tasks(report, measure="perplexity", higher_is_better=False, estimates=(estimate(20.5), estimate(30.0)))
    ((name, *cells),) = tables.tasks(found).cells
    assert name.note.endswith("lower is better")
    assert [(cell.text, cell.strong) for cell in cells] == [("20.50", True), ("30.00", False)]


def test_a_report_without_tasks_is_as_it_was():
    report = histories.evaluation(names=("base", "SFT"))
    assert not tables.tasks(report).rows
    assert "Tasks of others" not in to_markdown(report)
