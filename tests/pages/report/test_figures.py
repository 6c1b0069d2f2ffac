"""The figures of a run's influence in the report."""

from fccl.pages.report.figures import Figures, influence
from fccl.records.run import Verification
from fccl.view import sentences
from fccl.view.runs import RunReader
from tests.view.logs import Logs


def figures_of(logs, **verified):
    logs.begin()
    for number in range(3):
        said = Verification(examples=32, **verified)
        logs.append(logs.paths.progress, logs.record(number).model_copy(update={"verification": said}))
        logs.commit(number + 1)
    return {figure.title: figure for figure in influence(Figures(), RunReader(logs.paths).refresh())}


def test_what_the_rule_remembers_of_clients_is_a_figure_with_a_sentence(tmp_path):
    found = figures_of(Logs(tmp_path), standing=(0.0, 0.5, 2.5))
    assert sentences.STANDING in found["Standing by client"].says
    for name in ("out, until 0", "client 2"):
        assert name in found["Standing by client"].wide


def test_a_rule_that_remembers_nothing_has_no_such_figure(tmp_path):
    found = figures_of(Logs(tmp_path), prior=(0.2, 0.3, 0.5))
    assert "Standing by client" not in found
    assert "From prior to verified weight, round 3" in found
