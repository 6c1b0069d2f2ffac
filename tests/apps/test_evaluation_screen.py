import io

import pytest
from rich.console import Console

from fccl.adapters.adapter import Adapter
from fccl.adapters.torch_files import torch_bytes
from fccl.apps.evaluation_screen import EvaluationScreen, show
from fccl.data.examples import PreferencePair, SftExample, write_examples
from fccl.errors import DataError, SettingsError
from fccl.federation.run_evaluation import evaluate_run, write_report
from fccl.paths import DataPaths, LogPaths, of_earlier_versions
from fccl.records.evaluation import EvaluationOptions, EvaluationReport
from fccl.storage.files import write_bytes

OPTIONS = EvaluationOptions(
    gen_samples=2, gen_tokens=4, gen_temperature=0.8, bootstrap_samples=100, batch_size=8, seed=1
)
EVIL = "[red]no markup[/red] \x1b[2J"


@pytest.fixture
def folders(tmp_path):
    data, logs = DataPaths(tmp_path / "data"), LogPaths(tmp_path / "logs")
    sft = [SftExample(f"Say {n} {EVIL}", "a bird", topic=("birds", "fruit")[n % 2], answer="a bird") for n in range(12)]
    write_examples(data.server_split("test", "sft"), sft)
    write_examples(
        data.server_split("test", "va"),
        [PreferencePair(f"Say {n}", "a bird", "Go away.", flaw=f"flaw {n % 2}") for n in range(10)],
    )
    return data, logs


def adapters(model):
    def moved(step):
        return Adapter({name: tensor + step for name, tensor in model.initial_adapter(0).tensors.items()})

    return {"base": None, "SFT": moved(0.02), "FedVA": moved(0.05)}


def evaluate(model, folders, options=OPTIONS, console=None, shares=None, wanted=None):
    console = console or Console(file=io.StringIO(), width=80)
    report = evaluate_run(model, wanted or adapters(model), *folders, options, shares or {}, EvaluationScreen(console))
    write_report(folders[1], report)
    return report


def printed(report, width, **how):
    console = Console(file=io.StringIO(), width=width, **how)
    show(report, console)
    return console.file.getvalue()


def test_both_files_are_written_and_the_json_is_the_report(tiny_model, folders):
    report = evaluate(tiny_model, folders)
    assert EvaluationReport.model_validate_json(folders[1].evaluation_json.read_text()) == report
    assert folders[1].evaluation_markdown.read_text().startswith("# Evaluation")
    assert [model.name for model in report.models] == ["base", "SFT", "FedVA"]


def test_the_same_again_writes_the_same_bytes(tiny_model, folders):
    evaluate(tiny_model, folders)
    first = folders[1].evaluation_json.read_bytes(), folders[1].evaluation_markdown.read_bytes()
    evaluate(tiny_model, folders)
    assert (folders[1].evaluation_json.read_bytes(), folders[1].evaluation_markdown.read_bytes()) == first


def test_limits_take_a_part_of_the_split(tiny_model, folders):
    report = evaluate(tiny_model, folders, OPTIONS.model_copy(update={"max_sft": 5, "max_va": 3}))
    assert (report.sft_examples, report.va_pairs, report.models[0].margin.n) == (5, 3, 3)


def test_the_base_can_be_left_out_but_not_all(tiny_model, folders):
    options = OPTIONS.model_copy(update={"skip_base": True})
    report = evaluate(tiny_model, folders, options)
    assert [model.name for model in report.models] == ["SFT", "FedVA"]
    assert [(each.first, each.second) for each in report.comparisons] == [("SFT", "FedVA")]
    with pytest.raises(SettingsError, match="nothing to evaluate"):
        evaluate(tiny_model, folders, options, wanted={"base": None})


def test_clients_last_updates_are_evaluated_and_a_missing_one_is_named(tiny_model, folders):
    _, logs = folders
    updates = adapters(tiny_model)
    write_bytes(of_earlier_versions(logs.client_adapter(0, "sft")), torch_bytes(updates["SFT"].tensors))
    updates["SFT"].save(logs.client_adapter(1, "sft"))
    updates["FedVA"].save(logs.client_adapter(1, "va"))
    console = Console(file=io.StringIO(), width=80)
    options = OPTIONS.model_copy(update={"per_client": (0, 1, 2)})
    report = evaluate(tiny_model, folders, options, console, {0: {"birds": 3, "fruit": 1}})
    assert [(client.client_id, client.phase, client.mix is None) for client in report.clients] == [
        (0, "sft", False),
        (1, "va", True),
    ]
    assert report.clients[1].perplexity == report.models[2].perplexity
    assert "client 2 has no update" in console.file.getvalue()
    assert "client 0: response perplexity" in printed(report, 120)


def test_without_a_test_split_the_way_out_is_named(tiny_model, tmp_path):
    with pytest.raises(DataError, match="not there") as error:
        evaluate(tiny_model, (DataPaths(tmp_path / "none"), LogPaths(tmp_path / "logs")))
    assert "fccl prepare" in error.value.hint
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize("width", [80, 120])
def test_the_screen_keeps_its_width_and_has_every_part(tiny_model, folders, width):
    text = printed(evaluate(tiny_model, folders), width)
    assert max(map(len, text.splitlines())) <= width
    for part in (
        "response perplexity",
        "preference accuracy",
        "exact answers",
        "SFT against base",
        "flaw 1",
        "reference",
        "greedy",
        "sampled",
    ):
        assert part in text
    assert "…" not in text.replace(" …", "")  # nothing is cut by the width


def test_the_best_and_the_verdicts_need_no_colour(tiny_model, folders):
    text = printed(evaluate(tiny_model, folders), 120)
    assert " *" in text
    assert "no significant difference" in text or "better" in text or "worse" in text


def test_text_of_the_data_is_neither_markup_nor_an_order_to_the_terminal(tiny_model, folders):
    text = printed(evaluate(tiny_model, folders), 120)
    assert "[red]no markup[/red] \\x1b[2J" in text
    assert "\x1b" not in text


def test_lines_elsewhere_and_a_bar_on_a_terminal(tiny_model, folders):
    lines, terminal = Console(file=io.StringIO(), width=80), Console(file=io.StringIO(), width=80, force_terminal=True)
    evaluate(tiny_model, folders, console=lines)
    said = lines.file.getvalue().splitlines()
    assert said[:3] == ["evaluating base", "evaluating SFT", "evaluating FedVA"]
    assert not any(line.startswith("evaluating") for line in said[3:])
    evaluate(tiny_model, folders, console=terminal)
    assert "100 %" in terminal.file.getvalue()
