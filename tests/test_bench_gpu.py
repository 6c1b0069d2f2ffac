"""The one command for a person with a GPU, on a CPU: the same code with the eager twin of the recorder."""

import pytest
import torch

from benchmarks import bench_gpu
from benchmarks.bench_gpu import NO_GPU, Check, Measure, main


def test_the_checks_hold_here_and_the_page_says_that_its_times_say_nothing(tmp_path, capsys):
    page = tmp_path / "made" / "gpu.md"
    assert main(["--device", "cpu", "--steps", "1", "--out", str(page)]) == 0
    said = page.read_text()
    assert NO_GPU in said
    assert said.count("| holds |") == 10
    assert "| fails |" not in said
    assert "no such kernel here" in said
    for base in ("fp32", "bf16"):
        assert said.count(f"| {base}, ") == 4
    assert said.splitlines()[0] in capsys.readouterr().out


@pytest.mark.parametrize("figure", [2e-5, float("nan"), float("inf")])
def test_a_check_that_fails_ends_the_command_with_1(tmp_path, monkeypatch, figure):
    monkeypatch.setattr(bench_gpu, "checks", lambda lab: iter([Check("a", 1e-6, 1e-5), Check("b", figure, 1e-5)]))
    monkeypatch.setattr(bench_gpu, "measures", lambda lab: iter([Measure("one", 10.0, 40.0, 2e9)]))
    page = tmp_path / "gpu.md"
    assert main(["--device", "cpu", "--out", str(page)]) == 1
    said = page.read_text()
    assert ("| a | 1.0e-06 | 1e-05 | holds |" in said, said.count("fails")) == (True, 1)
    assert "| one | 10 | 1.00 | 25% | 2.00 GB |" in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_line():
    with pytest.raises(SystemExit, match="torch sees no GPU here"):
        main(["--device", "cuda"])
