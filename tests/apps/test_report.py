"""`fccl report`: one file that says what the records say, needs nothing else, and in which text stays text."""

import itertools
import re
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fccl.apps.main import main
from fccl.config import load_settings
from fccl.pages.report.svg import cleaned
from fccl.paths import ExchangePaths
from fccl.records.run import ExcludedClient, Verification
from fccl.storage.files import write_text
from fccl.transports.exchange.quarantine import Quarantine
from tests.compare.made_up import comparison
from tests.view.histories import evaluation, manifest
from tests.view.logs import BEGAN, Logs, line

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)> & </style></svg> \u202e\x1b[31m'
SEEN = EVIL.replace("\u202e", "\\u202e").replace("\x1b", "\\x1b")  # what no reader could see is spelt out
VOID = {"meta", "link", "br", "img", "input"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    inside: list = field(default_factory=list)

    def all(self, *tags):
        for child in self.inside:
            if isinstance(child, Element):
                if child.tag in tags or not tags:
                    yield child
                yield from child.all(*tags)

    @property
    def text(self):
        return "".join(child if isinstance(child, str) else child.text for child in self.inside)


class Page(HTMLParser):
    """A page as a tree. Every element that is opened is closed, in order."""

    def __init__(self, content):
        super().__init__()
        self.top = Element("", {})
        self.open = [self.top]
        self.feed(content)
        self.close()
        assert self.open == [self.top]

    def handle_starttag(self, tag, attributes):
        element = Element(tag, dict(attributes))
        self.open[-1].inside.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attributes):
        self.open[-1].inside.append(Element(tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag

    def handle_data(self, data):
        self.open[-1].inside.append(data)


def settings(**changes):
    return {
        name: str(value)
        for name, value in load_settings().model_dump().items()
        if name not in ("num_clients", "fed_rounds")
    } | changes


def report(root: Path, *arguments: str) -> Page:
    assert main(["report", "--log-dir", str(root), *arguments]) == 0
    return Page((root / "report.html").read_text(encoding="utf-8"))


@pytest.fixture
def logs(tmp_path):
    return Logs(tmp_path / "logs")


def finished(logs, **changes):
    logs.begin(**settings(**changes))
    for number in range(2 * logs.fed_rounds):
        logs.round(number, excluded=(1,) if number == 1 else ())
    logs.event("finished", BEGAN + 500, 2 * logs.fed_rounds)
    write_text(logs.paths.manifest, manifest(logs.clients, ("addition", "birds"), noisy=(1,)).model_dump_json())
    write_text(logs.paths.evaluation_json, evaluation().model_dump_json())
    return logs


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The report of a finished run."""
    return report(finished(Logs(tmp_path_factory.mktemp("whole") / "logs"), sft_lr="0.02").root)


def section(page, anchor):
    return next(each for each in page.top.all("section") if each.attributes["aria-labelledby"] == anchor)


def table(page, title):
    """A table's rows of texts, its head first."""
    region = next(
        each
        for each in page.top.all("div")
        if each.attributes.get("role") == "region" and each.attributes["aria-label"] == title
    )
    return [[cell.text for cell in row.all("th", "td")] for row in region.all("tr")]


# --- what it says


def test_it_says_what_the_records_say(whole):
    page = whole
    head = next(page.top.all("header")).text
    for words in (
        "Run run",
        "✓ finished",
        "all 4 rounds complete",
        "builtin:micro",
        "1 answer of clients were excluded, in 1 round",
    ):
        assert words in head
    report_of_models = evaluation()
    tiles = section(page, "glance").text
    assert f"{report_of_models.models[2].perplexity.value:.2f}" in tiles
    assert "▲ better than SFT" in tiles
    rounds = table(page, "Rounds")
    assert len(rounds) == 5
    assert rounds[2][:5] == ["2", "FedIT (SFT)", "2 of 3", "2.00", "2.500"]
    assert rounds[3][5] == "75.0 %"
    assert table(page, "FCCL weights by round, in %")[2] == ["2", "50.0", "–", "50.0"]
    assert table(page, "Clients excluded")[1] == ["2", "1", "no answer"]
    clients = table(page, "Who took part, and with what weight")
    held = manifest(3, ("addition", "birds")).samples_by_client()
    assert clients[2][0] == "1 spoilt on purpose"
    assert clients[2][2:6] == [str(held["sft"][1]), str(held["va"][1]), "3", "1"]
    assert [row[0] for row in table(page, "Events")] == ["event", "started", "finished"]
    assert ["SFT_LR", "0.02 by default 0.004"] in table(page, "Training")
    assert table(page, "Measures")[0][1:] == ["base", "SFT", "FedVA"]
    assert "ab" * 32 not in page.top.text
    assert "ef" * 32 in section(page, "provenance").text


def test_what_the_server_verified_and_what_averaging_loses_are_drawn(logs):
    logs.begin(**settings(contribution_source="verified", verify_temperature="0.5"))
    verified = Verification(examples=32, prior=(0.2, 0.3, 0.5), loss_prior=0.5, loss_weights=0.4, seconds=25.0)
    for number in range(3):
        logs.append(
            logs.paths.progress, logs.record(number).model_copy(update={"verification": verified, "lora_error": 0.25})
        )
        logs.commit(number + 1)
    said = section(report(logs.root), "influence").text.replace("\xa0", " ")
    assert "Weights: FCCL, verified, T = 0.5." in said
    assert "Loss of the mean on the server's examples in round 3: 0.500 with the prior, 0.400 with the weights." in said
    assert "25.0 % of the time of these rounds." in said
    assert "From prior to verified weight, round 3" in said
    assert "Error of averaging LoRA factors" in said


def test_without_a_comparison_there_is_no_section_of_it(whole):
    assert "methods" not in {each.attributes["aria-labelledby"] for each in whole.top.all("section")}


def test_a_comparison_beside_the_run_has_a_section_and_a_broken_one_has_none(logs):
    logs.begin(**settings())  # no rounds: their charts take longest
    write_text(logs.paths.compare.results, comparison().model_dump_json())
    page = report(logs.root)
    assert table(page, "shuffled answers, 2 of 4 clients")[3][:4] == [
        "FCCL, verified",
        "1.822",
        "0.670 [0.664, 0.677]",
        "2/2 ▲ better",
    ]
    assert next(figure.text for figure in section(page, "methods").all("h3")) == "Gap closed: shuffled answers"
    assert len(list(section(page, "methods").all("figure"))) == 1
    write_text(logs.paths.compare.results, comparison().model_dump_json()[:-9])
    assert "Comparison of methods" not in report(logs.root).top.text


def test_every_chart_is_there_twice_and_named(whole):
    page = whole
    drawn = list(page.top.all("figure"))
    assert len(drawn) == 3 + 5 + 6 + 2
    for figure in drawn:
        wide, narrow = figure.all("svg")
        for picture in (wide, narrow):
            assert picture.attributes["role"] == "img"
            title = next(picture.all("title"))
            assert picture.attributes["aria-labelledby"] == title.attributes["id"]
            assert next(figure.all("h3")).text in title.text
        assert next(figure.all("p")).text


def test_answers_stand_side_by_side(whole):
    page = whole
    first = next(next(page.top.all("ol")).all("li"))
    assert [each.text for each in first.all("h4")] == ["base", "SFT", "FedVA"]
    assert first.text.count("Birds fly. Birds fly.") == 3


# --- what it needs, and what it does not


def test_it_needs_nothing_else(whole):
    page = whole
    assert not list(page.top.all("script", "img", "iframe", "object", "use", "image", "foreignobject"))
    for element in page.top.all():
        for name, value in element.attributes.items():
            assert not name.startswith("on"), (element.tag, name)
            if name in ("href", "src", "xlink:href"):
                assert value.startswith(("#", "data:,"))
            assert not re.search(r"(https?:)?//", value or ""), value
    style = next(page.top.all("style")).text
    assert "url(" not in style
    assert "@import" not in style


def test_it_is_sound_html_with_headings_in_order_and_tables_that_say_what_is_what(whole):
    page = whole
    assert next(page.top.all("html")).attributes["lang"] == "en"
    levels = [int(each.tag[1]) for each in page.top.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))
    for each in page.top.all("th"):
        assert each.attributes["scope"] in ("col", "row")
    for row in page.top.all("tr"):
        assert next(row.all("th", "td")).tag == "th"
    ids = [each.attributes["id"] for each in page.top.all() if "id" in each.attributes]
    assert len(ids) == len(set(ids))
    for each in page.top.all():
        for name in ("aria-labelledby", "href"):
            target = each.attributes.get(name, "")
            if target and not target.startswith("data:"):
                assert target.removeprefix("#") in ids
        for reference in re.findall(r"url\(#([^)]*)\)", " ".join(str(value) for value in each.attributes.values())):
            assert reference in ids


# --- text stays text


def test_nothing_from_the_logs_is_markup(logs, tmp_path):
    exchange = ExchangePaths(tmp_path / "exchange")
    write_text(exchange.update(0, 3), "x")
    logs.run_id = EVIL
    finished(logs, model_name=EVIL, sft_data=EVIL)
    logs.append(
        logs.paths.progress, logs.record(3).model_copy(update={"excluded": (ExcludedClient(client_id=2, reason=EVIL),)})
    )
    logs.event("failed", BEGAN + 600, 4, message=EVIL)
    write_text(logs.paths.manifest, manifest(3, (EVIL, "birds")).model_dump_json())
    write_text(
        logs.paths.evaluation_json, evaluation(("base", EVIL, "FedVA"), answer=EVIL, topic=EVIL).model_dump_json()
    )
    Quarantine(exchange).refuse([exchange.update(0, 3)], EVIL, EVIL, 3, 0)
    page = report(logs.root, "--exchange-dir", str(exchange.root))
    assert not list(page.top.all("script", "img"))
    assert next(page.top.all("title")).text == f"Run {SEEN} · FCCL report"
    for anchor in ("evaluation", "failures", "data", "settings"):
        assert SEEN in section(page, anchor).text, anchor
    assert table(page, "Clients excluded")[-1][-1] == SEEN
    assert table(page, "Files refused")[1][-1] == SEEN
    assert any(SEEN[:10] in each.text for figure in page.top.all("figure") for each in figure.all("text"))
    assert "\x1b" not in page.top.text


def test_only_a_drawing_gets_out_of_an_svg():
    drawing = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="3" height="4"><script>alert(1)</script><style>*{}</style>'
        '<g onclick="alert(1)" fill="url(#a)">'
        '<image href="http://x"/><text>id="a" &lt;b&gt;</text></g><defs><linearGradient '
        'id="a"/></defs><foreignObject/></svg>'
    )
    page = Page(str(cleaned(drawing, "f1", 'a "title" & <more>')))
    (svg,) = page.top.all("svg")
    assert svg.attributes["viewbox"] == "0 0 3 4"
    assert {each.tag for each in svg.all()} == {"title", "g", "text", "defs", "lineargradient"}
    assert next(svg.all("g")).attributes == {"fill": "url(#f1-a)"}
    assert next(svg.all("lineargradient")).attributes == {"id": "f1-a"}
    assert next(svg.all("text")).text == 'id="a" <b>'
    assert next(svg.all("title")).text == 'a "title" & <more>'


# --- runs that are not finished


def test_a_run_that_has_just_begun_says_what_will_come(logs):
    logs.begin(**settings())
    page = report(logs.root)
    assert not list(page.top.all("figure"))
    assert "No round is complete yet" in section(page, "training").text
    assert "has not been evaluated" in section(page, "evaluation").text
    assert "0 of 4" in section(page, "glance").text


def test_a_run_that_failed_says_why_and_how_it_goes_on(logs):
    logs.begin(**settings())
    logs.round(0)
    logs.event("failed", BEGAN + 150, 1, message="round 1 has 1 good update, and MIN_CLIENTS is 2")
    head = next(report(logs.root).top.all("header")).text
    assert "! failed" in head
    assert "MIN_CLIENTS is 2" in head
    assert "fccl run --resume" in head


def test_what_could_not_be_read_is_counted(logs):
    logs.begin(**settings())  # no rounds: their charts take longest
    with open(logs.paths.progress, "a") as file:
        file.write('{"event": "round", "run_id": "run"}\nnonsense\n')
    assert "of the logs could not be read" in next(report(logs.root).top.all("header")).text


def test_a_long_run_of_many_clients_stays_a_file_to_send(tmp_path):
    logs = Logs(tmp_path / "logs", clients=20, fed_rounds=60)
    logs.begin(**settings())
    with open(logs.paths.progress, "ab") as file:
        for number in range(120):
            file.write(line(logs.record(number)))
    logs.commit(120)
    page = report(logs.root)
    assert len(table(page, "Rounds")) == 61
    assert [table(page, "Rounds")[at][0] for at in (1, -1)] == ["1", "120"]
    assert "60 of 120 rounds; all are in progress.jsonl" in section(page, "training").text
    assert "The 12 heaviest of 20 clients" in section(page, "influence").text
    assert (logs.root / "report.html").stat().st_size < 3e6


# --- the command


def test_an_earlier_run_is_found_by_its_id_and_the_newest_is_the_one_that_is_there(logs, tmp_path, capsys):
    Logs(logs.paths.archive / "earlier", run_id="earlier").begin(**settings())
    logs.begin(**settings())
    out = tmp_path / "deep" / "er" / "one.html"
    assert main(["report", str(out), "--run", "earlier", "--log-dir", str(logs.root)]) == 0
    drawing, wrote = capsys.readouterr().out.splitlines()
    assert drawing == "Drawing the tables and charts of run earlier ..."
    assert wrote.startswith(f"Wrote {out}")
    assert "Run earlier" in out.read_text()
    assert "Run run" in next(report(logs.root).top.all("header")).text


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["--log-dir", "none"], "none holds no run to report", "fccl run"),
        (["--log-dir", "logs", "--run", "rum"], "logs holds no run rum", "did you mean run?"),
        (["--log-dir", "logs", "--run", "42"], "logs holds no run 42", "there are run"),
        (["logs/run.json", "--log-dir", "logs"], "logs/run.json: the report is an HTML file", ".html"),
        (["folder.html", "--log-dir", "logs"], "cannot write folder.html: it is a folder", "--log-dir"),
        (
            ["logs/run.json/r.html", "--log-dir", "logs"],
            "the place to write to (logs/run.json/r.html) lies among the files of LOG_DIR=logs",
            "a folder of its own",
        ),
        (["--rum", "x"], "unknown argument --rum", "--run"),
    ],
)
def test_what_cannot_be_is_one_line_with_the_way_out(tmp_path, monkeypatch, capsys, arguments, error, hint):
    monkeypatch.chdir(tmp_path)
    Logs(tmp_path / "logs").begin(**settings())
    (tmp_path / "folder.html").mkdir()
    before = (tmp_path / "logs" / "run.json").read_bytes()
    assert main(["report", *arguments]) in (1, 2)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert said[0].startswith(f"error: {error}")
    assert hint in said[1]
    assert (tmp_path / "logs" / "run.json").read_bytes() == before
    assert not list(tmp_path.rglob("*.tmp"))


def test_without_its_libraries_it_says_what_installs_them(logs, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith(("fccl.pages.report", "fccl.view.charts"))]:
        monkeypatch.delitem(sys.modules, name)  # another test may have imported it
    monkeypatch.setitem(sys.modules, "altair", None)
    logs.begin()
    assert main(["report", "--log-dir", str(logs.root)]) == 2
    assert capsys.readouterr().err.splitlines()[1] == '  hint: pip install "fccl[dashboard]"'
    assert not logs.paths.report.exists()


def test_a_report_goes_with_its_run_when_the_next_one_begins(logs):
    write_text(logs.begin().paths.report, "<!DOCTYPE html>")
    assert logs.paths.report in logs.paths.own_entries()
