import pytest
import torch
from rich.console import Console

from benchmarks import bench_training
from benchmarks.bench_training import NAMES, Case, Result, read_options, recorded, setup_of, show, tokens
from benchmarks.training_contestants import encoded, packed_by_hand
from fccl.data.examples import SftExample
from fccl.model.base_model import load_base
from fccl.model.encoding import encode
from fccl.model.packing import pack


@pytest.mark.parametrize("length", [64, 98, 256])
def test_examples_of_a_fixed_length_have_it(length):
    """But for a first word, which has no space before it and may be two tokens."""
    case = Case("sft", rounds=1, batch=2, length=length)
    examples = case.examples()
    rows = encode(
        load_base("builtin:micro", 128).tokenizer,
        "sft",
        [SftExample(one["instruction"], one["completion"].strip()) for one in examples],
        1024,
    )
    assert all(abs(len(row.ids) - length) <= 3 for (row,) in rows)
    assert len(rows) == 4
    assert tokens(examples, "sft") == 4 * length


def test_a_recorded_table_is_read_as_it_is_written(tmp_path, monkeypatch, capsys):
    case = Case("va", rounds=2)
    found = [Result(NAMES["gpt2"], 2000.0, [1.0, 1.0], 1e9), Result(NAMES["trl"], 100.0, [9.5, 10.25], 2e9)]
    show(case.title, found, Console(width=200), markdown=True)
    page = tmp_path / "performance.md"
    page.write_text(f"### SFT\n\n| x | 1 | 2.00 | 1.00 to 3.00 | 1 GB |\n\n{capsys.readouterr().out}\n## After\n")
    monkeypatch.setattr(bench_training, "PERFORMANCE", page)
    assert recorded("DPO") == {"`ENGINE=gpt2`": 1.0, "TRL, defaults": 9.5}
    show(case.title, [found[0], Result(NAMES["trl"], 100.0, [8.0, 9.0], 2e9)], Console(width=200), markdown=False)
    assert "worse than recorded: TRL, defaults: 8.50, at least 9.50" in capsys.readouterr().out


def test_another_model_races_without_what_is_written_for_gpt2_alone(tmp_path):
    options = read_options(["--model", str(tmp_path / "some-llama"), "--without", "trl"])
    setup = setup_of(options, tmp_path)
    assert setup.names("sft") == ["generic-sft", "loop-sft", "trl-best-sft"]
    assert setup.names("va") == ["generic-va", "trl-best-va"]
    assert setup.targets == "all-linear"
    assert setup.title(Case("sft", 1, batch=2)) == "SFT, batches of 2, some-llama"


def test_the_compiled_loop_and_an_int8_base_race_where_they_are_asked_for(tmp_path):
    setup = setup_of(read_options(["--model", str(tmp_path), "--with", "compile"]), tmp_path)
    assert setup.names("sft") == ["generic-sft", "loop-sft", "compile-sft", "trl-best-sft", "trl-sft"]
    assert "compile-va" not in setup.names("va")
    setup = setup_of(read_options(["--model", str(tmp_path), "--with", "int8"]), tmp_path)
    assert setup.names("va") == ["generic-va", "int8-va", "trl-best-va", "trl-va"]


def test_the_loops_batch_is_what_a_client_trains_on():
    """The same tokens at the same places as this project's own packing, by the hand of whoever wrote the loop."""
    tokenizer = load_base("builtin:micro", 128).tokenizer
    examples = Case("sft", rounds=1, batch=3).examples()[:3]
    ids, positions, mask, rows, targets = packed_by_hand(tokenizer, examples)
    ours = pack(encoded(tokenizer, "sft", examples))
    assert ids[0].tolist() == ours.ids.tolist()
    assert positions[0].tolist() == ours.positions.tolist()
    assert (rows.tolist(), targets.tolist()) == (ours.rows.tolist(), ours.targets.tolist())
    owners = torch.bucketize(torch.arange(len(ours.ids)), ours.starts, right=True)
    assert torch.equal(mask[0, 0], (owners[:, None] == owners).tril())
