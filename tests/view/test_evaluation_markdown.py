import html
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from fccl.display.plain_text import visible
from fccl.evaluation.by_client import evaluate_client
from fccl.evaluation.comparison import compare_all
from fccl.evaluation.suite import evaluate_model, summarise
from fccl.records.evaluation import EvaluationReport, Generation
from fccl.view.evaluation_markdown import to_markdown
from fccl.view.evaluation_tables import measures
from fccl.view.markdown import quoted

PARSER = MarkdownIt("commonmark").enable("table")
EVIL = "a | b <script>alert(1)</script>\n# *no* `code` [x](http://y) \\| \x1b[31m &amp; $x$ ~~s~~"


@pytest.fixture(scope="module")
def report(tiny_model, an_adapter, split, options, boot):
    adapters = {"base": None, "SFT": an_adapter(1), "FedVA": an_adapter(2)}
    models = [evaluate_model(tiny_model, name, adapter, split, options) for name, adapter in adapters.items()]
    own = evaluate_model(tiny_model, "client 0", an_adapter(3), split, options)
    return EvaluationReport(
        model="tiny",
        sft_examples=9,
        va_pairs=8,
        truncated=1,
        options=options,
        models=tuple(summarise(one, boot) for one in models),
        comparisons=compare_all(models, boot),
        clients=(evaluate_client(0, "va", own, models[-1], {"birds": 2, "stars": 2}, boot),),
    )


def tables_of(markdown):
    """Every table as rows of cells' text, as a Markdown reader sees them."""
    return [[cells_of(row) for row in between("tr", table)] for table in between("table", PARSER.render(markdown))]


def between(tag, rendered):
    return re.findall(rf"<{tag}>(.*?)</{tag}>", rendered, re.S)


def cells_of(row):
    return [text_of(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S)]


def text_of(rendered):
    return html.unescape(re.sub(r"<[^>]*>", "", rendered.replace("<br>", "\n")))


def test_the_report_goes_through_json_unchanged(report):
    assert EvaluationReport.model_validate_json(report.model_dump_json()) == report


def test_the_best_is_the_lowest_of_what_should_be_low_and_the_highest_of_the_rest(report):
    figures = {
        "response perplexity": [-model.perplexity.value for model in report.models],
        "response NLL": [-model.nll.value for model in report.models],
        "mean margin": [model.margin.value for model in report.models],
    }
    rows = {row[0].text: row[1:] for row in measures(report).cells}
    for label, values in figures.items():
        # nine examples seldom tell; where one is marked, it is the best
        assert [cell.strong for cell in rows[label]] in ([False] * 3, [value == max(values) for value in values]), label


def test_every_table_is_whole(report):
    found = tables_of(to_markdown(report))
    assert len(found) == 7 + 3  # measures, differences, two by topic, flaws, two by client; three instructions
    for table in found:
        assert len({len(row) for row in table}) == 1


def test_the_main_table_has_the_measures_with_their_intervals(report):
    header, first, *rest = tables_of(to_markdown(report))[0]
    assert header == ["measure", "base", "SFT", "FedVA"]
    sft = report.models[1].perplexity
    assert first[0].startswith("response perplexity")
    assert re.fullmatch(r"[\d.,]+ \[[\d.,]+ to [\d.,]+\]", first[2])
    assert float(first[2].split(" ")[0].replace(",", "")) == pytest.approx(sft.value, rel=0.01)
    assert rest[-1][1] == f"{report.models[0].preference.right} / {report.models[0].preference.wrong} / 1"


def test_differences_have_a_verdict_in_words(report):
    rows = tables_of(to_markdown(report))[1]
    assert rows[0] == ["measure", "SFT against base", "FedVA against SFT", "FedVA against base"]
    assert all(
        re.search(r"(better|worse|no significant difference|too few examples)$", cell)
        for row in rows[1:]
        for cell in row[1:]
    )


def test_what_the_data_does_not_have_is_a_dash(report):
    model = report.models[0].model_copy(update={"exact": None, "topics": (), "flaws": (), "generations": ()})
    bare = report.model_copy(update={"models": (model,), "comparisons": (), "clients": ()})
    (table,) = tables_of(to_markdown(bare))
    assert next(row for row in table if row[0].startswith("exact"))[1] == "–"


def test_text_of_data_and_models_is_quoted(report):
    shown = Generation(instruction=EVIL, reference=EVIL, greedy=EVIL, sampled=EVIL)
    models = tuple(model.model_copy(update={"generations": (shown,)}) for model in report.models)
    markdown = to_markdown(report.model_copy(update={"models": models, "model": EVIL}))
    assert "\x1b" not in markdown
    rendered = PARSER.render(markdown)
    assert not re.search(r"<(script|code|a|h3|s)\b", rendered)
    for row in tables_of(markdown)[-1][2:]:
        assert row[1:] == [visible(EVIL), visible(EVIL)]


@given(st.text(max_size=40))
@example("a|b")
@example("\\|")
@example("`|`")
@example("*a* _b_ <br> &lt; [x](y) ![i](j) ~~z~~")
@example("<!-- -->")
@example("|")
def test_quoted_text_reads_as_it_was(text):
    ((_, (cell,)),) = tables_of(f"| x |\n|---|\n| .{quoted(text)}. |")
    assert " ".join(cell.split()) == " ".join(f".{visible(text)}.".split())


@given(st.text())
def test_visible_text_has_nothing_that_a_terminal_obeys(text):
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", visible(text))
    assert visible(visible(text)) == visible(text)
