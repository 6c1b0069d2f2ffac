"""Nothing that a log says becomes markup on the page."""

import html
import time

import pytest

from fccl.pages.dashboard.page import TABS
from fccl.records.run import ExcludedClient
from fccl.storage.files import write_text
from tests.compare.made_up import comparison
from tests.pages.script import shown
from tests.view import histories
from tests.view import logs as logs_module
from tests.view.logs import Logs

HOSTILE = (  # no longer than a run id may be
    "<script>alert(1)</script> [press](javascript:alert(1)) $\\latex$",
    ":material/home: :red[no] <img src=x onerror=alert(1)> `code`",
)


def hostile_comparison(words):
    usual = comparison()
    scenario, method = (
        usual.scenarios[0].model_copy(update={"title": words}),
        usual.methods[2].model_copy(update={"title": words}),
    )
    early = usual.rows[0].model_copy(update={"stopped": (words,)})
    return usual.model_copy(
        update={
            "model": words,
            "examples": {words: 1},
            "scenarios": (scenario, *usual.scenarios[1:]),
            "methods": (*usual.methods[:2], method, *usual.methods[3:]),
            "rows": (early, *usual.rows[1:]),
        }
    )


@pytest.mark.parametrize("words", HOSTILE)
def test_nothing_from_a_log_is_markup(page, tmp_path, words):
    """Wherever a log can put words: run id, settings, messages, reasons, hosts, topics, answers, file names, whole
    lines.
    """
    logs = Logs(tmp_path / "logs", run_id=words).begin(model_name=words)
    logs.append(
        logs.paths.progress,
        logs.record(0, excluded=(2,)).model_copy(update={"excluded": (ExcludedClient(client_id=2, reason=words),)}),
    )
    logs.append(logs.paths.client_metrics, logs.metrics(0, 0))
    logs.commit(1)
    logs.beat(0, "training", 1, time.time(), host=words)
    earlier = Logs(logs.paths.archive / "earlier", run_id=f"earlier {words}").begin(model_name="other")
    earlier.event("failed", logs_module.BEGAN, message=words)
    write_text(
        logs.paths.evaluation_json,
        histories.evaluation(names=("base", words), answer=words, topic=words).model_dump_json(),
    )
    write_text(logs.paths.manifest, histories.manifest(topics=(words, "birds")).model_dump_json())
    write_text(logs.paths.compare.results, hostile_comparison(words).model_dump_json())
    (tmp_path / "exchange").mkdir()
    (tmp_path / "exchange" / words.replace("/", "_")).touch()
    found = 0
    for tab in TABS:
        if tab == "Two runs":
            page.session_state["other"] = f"earlier {words}"
        shown(page, tab)
        markdown = [each.value for each in (*page.markdown, *page.caption, *page.error, *page.info)] + [
            each.label for each in (*page.metric, *page.expander)
        ]
        assert not [each for each in markdown if words in each]
        body = " ".join(each.proto.body for each in page.get("html"))
        assert html.escape(words) == words or words not in body
        found += body.count(html.escape(words))
    assert found >= 10
