import vl_convert

from fccl.records.evaluation import Estimate
from fccl.view import charts
from tests.compare import made_up
from tests.compare.made_up import comparison
from tests.view.charts.reading import all_data, wording


def test_the_gap_that_is_closed_by_method_with_its_interval():
    shuffled, flipped = comparison().scenarios
    spec = charts.gap_closed(comparison(), shuffled).to_dict()
    table = all_data(spec, "method")
    assert table["method"].tolist() == ["FCCL, verified", "oracle (no bad clients)"]
    assert table[["low", "at", "high"]].round(2).values.tolist() == [[0.49, 0.5, 0.51], [0.59, 0.6, 0.61]]
    assert table[["figure", "interval", "label", "verdict"]].values.tolist()[0] == [
        "50%",
        "49% to 51%",
        "50%",
        "better",
    ]
    assert table["label"].tolist()[1] == "60%"
    assert "pooled data" in str(spec)
    assert charts.gap_closed(comparison(), flipped) is None
    assert "NaN" not in vl_convert.vegalite_to_svg(
        charts.gap_closed(comparison(), shuffled).properties(width=300).to_dict(), allowed_base_urls=[]
    )


def test_without_the_pooled_data_the_gap_is_that_to_the_oracle_which_has_no_figure_on_its_own_line():
    found = comparison(rows=tuple(row.model_copy(update={"gap_pooled": None}) for row in comparison().rows))
    spec = charts.gap_closed(found, found.scenarios[0]).to_dict()
    table = all_data(spec, "method")
    assert table[["low", "at", "high"]].round(2).values.tolist() == [[0.79, 0.8, 0.81], [1, 1, 1]]
    assert table["label"].tolist() == ["80%", ""]
    assert "pooled data" not in str(spec)


def test_a_gap_beyond_the_picture_is_at_its_edge_and_says_so():
    far = Estimate(value=-12.5, low=-40.0, high=-3.0, n=99)
    found = comparison(rows=(made_up.row("shuffled", "median", 9.0, verdict="worse", gap_closed=far),))
    spec = charts.gap_closed(found, found.scenarios[0]).to_dict()
    assert all_data(spec, "method")[["at", "label"]].values.tolist() == [[-1.0, "-1250%"]]
    assert "drawn at the edge" in wording(spec)
