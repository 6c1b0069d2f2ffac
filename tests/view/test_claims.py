import pytest

from fccl.view.claims import VERDICTS, claim_lines, claim_table, wins_table
from fccl.view.comparison_tables import to_markdown
from tests.compare.made_up import PAIRS, SCENARIOS, comparison, row


def primary(*more, **changes):
    return comparison(pairs=(*PAIRS, *more), **changes)


def test_without_a_primary_set_there_is_no_claim():
    assert claim_lines(comparison()) == []
    assert claim_table(comparison()).rows == ()


def test_the_claim_counts_every_pair_once_and_says_where_ours_is_worse():
    lost = PAIRS[1].model_copy(update={"scenario": "flipped", "verdict": "worse"})
    lines = claim_lines(primary(lost))
    assert lines[0] == (
        "FCCL, verified against 2 rivals in 2 scenarios, seeds 1, 2: of 4 pairs better 2, not worse 0, cannot be told "
        "apart 1, worse 1."
    )
    assert lines[1] == "Against FedAvg alone: of 2 pairs better 1, not worse 0, cannot be told apart 1, worse 0."
    assert lines[-1] == "Worse in: preferences, flipped (coordinate median)."
    assert claim_lines(primary())[-1] == "Worse nowhere."


def test_the_regimes_are_counted_apart():
    flat = SCENARIOS[1].model_copy(update={"rounds": (7, 9)})
    lines = claim_lines(primary(scenarios=(SCENARIOS[0], flat)))
    assert lines[2:4] == [
        "After 2 rounds: of 2 pairs better 2, not worse 0, cannot be told apart 0, worse 0.",
        "Until FedAvg is flat: of 1 pairs better 0, not worse 0, cannot be told apart 1, worse 0.",
    ]


def test_a_rivals_row_sums_to_its_pairs():
    table = claim_table(primary())
    assert table.head == ("rival", *VERDICTS)
    counts = {cells[0].text: [int(cell.text) for cell in cells[1:]] for cells in table.cells}
    assert counts == {"FedAvg": [1, 0, 1, 0], "coordinate median": [1, 0, 0, 0]}


def test_a_table_of_a_primary_set_begins_with_its_claim():
    text = to_markdown(primary())
    assert text.index("of 3 pairs better 2") < text.index("## Every method")


def wins(made):
    return {cells[0].text: [cell.text for cell in cells[1:]] for cells in wins_table(made).cells}


def test_methods_win_by_their_verdicts_and_no_oracle_is_among_them():
    assert wins(comparison()) == {
        "FedAvg": ["\N{EN DASH}", "\N{EN DASH}", "2", "preferences, flipped"],
        "FCCL, verified": ["1", "0", "2", "shuffled answers"],
        "coordinate median": ["0", "1", "1", "\N{EN DASH}"],
    }


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_method_of_fewer_seeds_is_never_lowest(seeds):
    few = row("shuffled", "median", 0.1).model_copy(update={"seeds": seeds})
    rows = tuple(few if (each.scenario, each.method) == ("shuffled", "median") else each for each in comparison().rows)
    found = wins(comparison(rows=rows))
    assert (found["coordinate median"][-1] == "shuffled answers") == (seeds == 2)
