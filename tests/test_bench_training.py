import pytest
from rich.console import Console

from benchmarks import bench_training
from benchmarks.bench_training import NAMES, Case, Result, recorded, show, tokens
from fccl.data.examples import SftExample
from fccl.model.base_model import load_base
from fccl.model.encoding import encode


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
    show(case, found, Console(width=200), markdown=True)
    page = tmp_path / "performance.md"
    page.write_text(f"### SFT\n\n| x | 1 | 2.00 | 1.00 to 3.00 | 1 GB |\n\n{capsys.readouterr().out}\n## After\n")
    monkeypatch.setattr(bench_training, "PERFORMANCE", page)
    assert recorded("DPO") == {"`ENGINE=gpt2`": 1.0, "TRL, defaults": 9.5}
    show(case, [found[0], Result(NAMES["trl"], 100.0, [8.0, 9.0], 2e9)], Console(width=200), markdown=False)
    assert "worse than recorded: TRL, defaults: 8.50, at least 9.50" in capsys.readouterr().out
