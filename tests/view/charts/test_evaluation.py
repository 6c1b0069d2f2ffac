import pytest
import vl_convert

from fccl.view import charts
from tests.view.charts.reading import all_data, encodings
from tests.view.histories import evaluation


@pytest.mark.parametrize(
    ("measure", "field"), [("perplexity", "perplexity"), ("exact", "exact"), ("preference", "preference")]
)
def test_every_model_has_its_figure_and_its_interval(measure, field):
    report = evaluation()
    spec = charts.evaluation(report, measure).to_dict()
    table = all_data(spec, "value").set_index("model")
    for model in report.models:
        one = getattr(model, field)
        one = one.accuracy if field == "preference" else one
        assert table.loc[model.name, ["low", "value", "high"]].tolist() == [one.low, one.value, one.high]
    assert (encodings(spec)[0]["x"]["scale"].get("type") == "log") == (measure == "perplexity")
    assert vl_convert.vegalite_to_svg(spec | {"width": 300}, allowed_base_urls=[])


def test_what_was_not_measured_has_no_chart():
    assert charts.evaluation(evaluation(exact=False), "exact") is None
