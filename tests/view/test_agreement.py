from fccl.view.agreement import agreement_tables, effective_tables
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


def test_rounds_whose_halves_disagree_are_told_apart():
    made = comparison()
    first = made.rows[0].model_copy(update={"agreement": 0.4, "agreement_stable": 0.81, "stable_rounds": (4, 6)})
    every, stable = agreement_tables(made.model_copy(update={"rows": (first, *made.rows[1:])}))
    assert [[cell.text for cell in row[1:]] for row in (*every.cells, *stable.cells)] == [["0.40"], ["0.81 (4 of 6)"]]
    assert every.title != stable.title


def test_effective_clients_are_the_fewest_of_all_rounds_where_nobody_is_bad():
    made = comparison()
    assert effective_tables(made) == [], "somebody is bad in both scenarios"
    clean = made.scenarios[0].model_copy(update={"bad_clients": 0})
    rows = [row.model_copy(update={"effective": (3.9, 2.04, 3.0)}) for row in made.rows[:1]]
    known = made.model_copy(update={"scenarios": (clean, *made.scenarios[1:]), "rows": (*rows, *made.rows[1:])})
    (table,) = effective_tables(known)
    assert [[cell.text for cell in row[1:]] for row in table.cells] == [["2.0"]]
    assert "Effective clients" in to_markdown(known)
