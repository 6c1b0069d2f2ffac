"""`fccl prepare` as a person sees it: the numbers are there whatever the terminal can show, and nothing overflows."""

import io
import json
import re
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from fccl.apps.data_screen import DataScreen, show_manifest, topic_table
from fccl.apps.main import main
from fccl.config import load_settings
from fccl.data.in_use import prepare_anew
from fccl.data.shards import read_manifest
from fccl.errors import DataError
from fccl.library.narrow import data_spec
from fccl.paths import DataPaths
from fccl.records.manifest import Manifest, SourceReport


def settings_of(**arguments):
    return load_settings({name: str(value) for name, value in arguments.items()})


def manifest_of(clients, topics=3, **more):
    spec = data_spec(settings_of(num_clients=clients, noisy_clients="0", noise_kind="flipped"))
    table = tuple(tuple(100 * topic + client for topic in range(topics)) for client in range(clients))
    reports = (
        SourceReport(
            phase="sft",
            name="a.json",
            kind="file",
            sha256="",
            rows_read=9,
            bad_rows=7,
            bad_row_reasons=("a.json:2: x",),
            duplicates=1,
            examples=4,
        ),
        SourceReport(phase="va", name="synthetic", kind="synthetic", sha256="", rows_read=4, examples=4),
    )
    fields = {
        "counts": {"train": {"sft": 12, "va": 34}, "test": {"sft": 56, "va": 78}},
        "topics": tuple(f"topic [{n}]" for n in range(topics)),
    } | more
    return Manifest(
        spec=spec, sources=reports, topics_by_client={"sft": table, "va": table}, noisy_clients=(0,), files={}, **fields
    )


def shown(manifest, width=100, **options):
    console = Console(file=io.StringIO(), width=width, **options)
    show_manifest(manifest, DataPaths(Path("data")), console)
    return console.file.getvalue()


def test_settings_become_a_spec():
    spec = data_spec(
        settings_of(
            non_iid_alpha="inf", noisy_clients="2,0", num_clients=4, size_skew=3, test_examples=10, va_data="synthetic"
        )
    )
    assert (spec.partition.alpha, spec.partition.num_clients, spec.partition.size_skew) == (None, 4, 3.0)
    assert (spec.noisy_clients, spec.test_examples, spec.va_data, spec.seed) == ((0, 2), 10, "synthetic", 42)


def test_everything_is_said_without_colour():
    text = shown(manifest_of(3))
    assert "\x1b" not in text
    assert re.search(r"topic \[2\] +200 +201 +202 +603", text)
    assert re.search(r"all +300 +303 +306 +909", text)
    assert "0!" in text
    assert re.search(r"Instructions \(SFT\) +12 +56", text)
    for remark in (
        "a.json, 9 rows, 4 used; left out: 1 duplicate, 7 malformed",
        "left out: a.json:2: x",
        "6 more",
        "client 0, preferred and dispreferred exchanged",
        "synthetic pairs",
    ):
        assert remark in text
    assert "topics_by_client.png" in text


def test_what_was_left_out_and_what_was_not_read_is_said():
    manifest = manifest_of(2)
    sft = manifest.sources[0].model_copy(
        update={
            "marked": 3,
            "answers_passed_over": 1,
            "false_tens": 2,
            "columns_not_used": ("source", "label (scores, 99 different ones in 99 rows)", "\x1b[31mred"),
        }
    )
    text = shown(manifest.model_copy(update={"sources": (sft, manifest.sources[1])}))
    for remark in (
        "left out: 1 duplicate, 3 marked as not to be learnt, 7 malformed",
        "left out: 2 answers rated 10, contradicted by a fine-grained score of 2 or less",
        "left out: 1 answer without a text or a rating",
        "columns not used: source, label (scores, 99 different ones in 99 rows), \\x1b[31mred",
    ):
        assert remark in text
    many = sft.model_copy(update={"columns_not_used": tuple(f"c{index}" for index in range(20))})
    assert "c10, c11 and 8 more" in shown(manifest.model_copy(update={"sources": (many, manifest.sources[1])}))
    assert "columns not used" not in shown(manifest)


def test_a_terminal_gets_shades_and_the_same_numbers():
    plain, coloured = shown(manifest_of(3)), shown(manifest_of(3), force_terminal=True, color_system="truecolor")
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured).split() == plain.split()


@pytest.mark.parametrize(
    ("clients", "width", "columns"), [(3, 80, 5), (12, 200, 14), (12, 80, 5), (13, 200, 5), (500, 80, 5)]
)
def test_more_clients_than_fit_are_summarised(clients, width, columns):
    manifest = manifest_of(clients)
    assert len(topic_table(manifest, "sft", width).head) == columns
    assert max(map(len, shown(manifest, width).split("\n")[:12])) <= width


def test_many_topics_are_summarised():
    text = shown(manifest_of(2, topics=200))
    assert "177 smaller topics" in text
    assert text.count("topic [") == 2 * 23


@pytest.mark.parametrize("terminal", [False, True])
def test_the_whole_command(tmp_path, terminal):
    console = Console(file=io.StringIO(), width=80, force_terminal=terminal)
    settings = settings_of(data_dir=tmp_path / "data", max_sft_examples=200, max_va_examples=100)
    prepare_anew(data_spec(settings), DataPaths(tmp_path / "data"), DataScreen(console))
    manifest = read_manifest(DataPaths(tmp_path / "data"))
    text = console.file.getvalue()
    assert manifest.counts["train"]["sft"] == 140
    assert re.sub(r"\x1b\[[0-9;]*m", "", text).count("Preference pairs (VA)") == 2
    assert ("prepare: reading builtin" in text) is not terminal


def test_a_bad_source_is_an_error_on_a_terminal_too(tmp_path):
    with pytest.raises(DataError, match="neither a file"):
        prepare_anew(
            data_spec(settings_of(sft_data="a/b/c")),
            DataPaths(tmp_path / "data"),
            DataScreen(Console(file=io.StringIO(), force_terminal=True)),
        )


def test_the_command_returns_success(tmp_path, capsys):
    assert (
        main(["prepare", "--data-dir", str(tmp_path / "data"), "--max-sft-examples", "50", "--max-va-examples", "50"])
        == 0
    )
    assert "Instructions (SFT)" in capsys.readouterr().out


SMALL = ("--max-sft-examples", "50", "--max-va-examples", "50")


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A folder with prepared data, and when each of its files was written."""
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", "--keep", *SMALL]) == 0  # there was nothing to keep
    return {path: path.stat().st_mtime_ns for path in Path("data").rglob("*") if path.is_file()}


def test_data_of_the_same_settings_is_kept(kept, capsys):
    assert main(["prepare", "--keep", *SMALL]) == 0
    assert "Data: data/ is ready" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in Path("data").rglob("*") if path.is_file()} == kept


def test_data_of_other_settings_is_neither_used_nor_replaced(kept, capsys):
    assert main(["prepare", "--keep", *SMALL, "--seed", "3", "--non-iid-alpha", "inf", "--noisy-clients", "1"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(
        "error: the data in data/ was prepared with NOISY_CLIENTS=, NON_IID_ALPHA=0.5, SEED=42\n  hint: use these "
        "settings, or remove "
    )
    assert {path: path.stat().st_mtime_ns for path in Path("data").rglob("*") if path.is_file()} == kept
    Path("data/manifest.json").unlink()
    assert main(["prepare", "--keep", *SMALL, "--seed", "3"]) == 0


def test_data_that_was_changed_is_not_used(kept, capsys):
    Path("data/clients/client_0_sft.jsonl").write_text("")
    assert main(["prepare", "--keep", *SMALL]) == 1
    assert "error: files in data/ are not what its manifest says" in capsys.readouterr().err


def test_data_that_a_run_was_made_with_is_not_replaced_without_a_word(small_run, tmp_path, monkeypatch, capsys):
    shutil.copytree(small_run, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    run_id = json.loads((tmp_path / "logs" / "run.json").read_text())["run_id"]
    same = ("--max-sft-examples", "60", "--max-va-examples", "30")
    assert main(["prepare", *same]) == 0
    assert "need `fccl prepare`" not in capsys.readouterr().out, "it is the same data, to the byte"
    assert main(["prepare", *same, "--seed", "5"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"The data in data/ is that of run {run_id} in logs/: `fccl replay`, `forget` and `evaluate` of it" in said
    assert main(["prepare", *same, "--seed", "6"]) == 0
    assert "need `fccl prepare`" not in capsys.readouterr().out, "it was nobody's"
