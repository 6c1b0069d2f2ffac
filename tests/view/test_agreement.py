from fccl.view.agreement import agreement_tables
from fccl.view.comparison_tables import to_markdown
from tests.compare.made_up import comparison


def test_a_comparison_that_was_not_asked_has_no_such_table():
    assert agreement_tables(comparison()) == []
    assert "Shapley" not in to_markdown(comparison())


def test_it_has_the_methods_and_scenarios_that_were_asked():
    made = comparison()
    first = made.rows[0]
    rows = (first.model_copy(update={"agreement": 0.756}), *made.rows[1:])
    (table,) = agreement_tables(made.model_copy(update={"rows": rows}))
    titles = {one.name: one.title for one in (*made.methods, *made.scenarios)}
    assert table.head == ("method", titles[first.scenario])
    assert [[cell.text for cell in row] for row in table.cells] == [[titles[first.method], "0.76"]]
    assert "0.76" in to_markdown(made.model_copy(update={"rows": rows}))
