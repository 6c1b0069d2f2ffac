"""Whole runs from the command line: what the quickstart promises, killed and resumed, on real texts.

`make test-long` runs these.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fccl.adapters.adapter import load_adapter
from fccl.paths import LogPaths
from fccl.records.run import RoundRecord
from fccl.storage.reading import read_records, read_rows
from tests.apps.commands import begun

ROOT = Path(__file__).resolve().parent.parent
REAL = ROOT.parent / "shared" / "data"
SHORT = ("--max-sft-examples", "300", "--max-va-examples", "150", "--fed-rounds", "2", "--no-evaluate")
pytestmark = pytest.mark.slow
# All cores, as a user's command has them: the tests' own variable would keep clients from training side by side.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | {
    "PYTHONPATH": str(ROOT)
}


def fccl(*arguments, folder, check=True):
    command = [sys.executable, "-m", "fccl", *arguments]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert not check or result.returncode == 0, result.stdout + result.stderr
    return result


def start(*arguments, folder):
    command = [sys.executable, "-m", "fccl", *arguments]
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=ENVIRONMENT,
    )


def final_bytes(folder):
    return (folder / "logs" / "global_final.safetensors").read_bytes()


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """One run with every default, as `make demo` does it; its folder, its seconds and its peak memory in bytes."""
    folder = tmp_path_factory.mktemp("quickstart")
    started = time.monotonic()
    first = fccl("prepare", folder=folder)
    second = fccl("run", folder=folder)
    seconds = time.monotonic() - started
    (folder / "stdout.txt").write_text(first.stdout + second.stdout)
    return folder, seconds


@pytest.fixture(scope="module")
def evaluation(quickstart):
    return json.loads((quickstart[0] / "logs" / "evaluation.json").read_text())


def figures(evaluation, name):
    return next(model for model in evaluation["models"] if model["name"] == name)


def test_the_quickstart_keeps_its_promise(evaluation):
    base, sft, va = (figures(evaluation, name) for name in ("base", "SFT", "FedVA"))
    accuracy = {model["name"]: model["preference"]["accuracy"]["value"] for model in (base, sft, va)}
    exact = {model["name"]: model["exact"]["value"] for model in (base, sft, va)}
    assert base["perplexity"]["value"] >= 3 * va["perplexity"]["value"]
    assert 0.35 <= accuracy["base"] <= 0.65
    assert accuracy["FedVA"] >= 0.85
    assert exact["base"] <= 0.05
    # 60 % in README. 55 is the lower end of the interval over the 300 test answers in docs/results.md, and below all
    # that the quickstart has given with other last bits, of an engine or of threads: 57 to 67 % (docs/log.md).
    assert exact["FedVA"] >= 0.55
    gains = {
        (each["first"], each["second"]): {one["measure"]: one["verdict"] for one in each["differences"]}
        for each in evaluation["comparisons"]
    }
    assert gains["base", "SFT"]["exact answers"] == "better"
    assert gains["SFT", "FedVA"]["mean margin"] == "better"
    assert gains["SFT", "FedVA"]["response perplexity"] == "better"
    assert (
        accuracy["FedVA"] > accuracy["SFT"]
    )  # by more than chance with some seeds, not with this one: docs/results.md


def test_the_quickstart_ends_with_the_table_and_where_the_results_are(quickstart):
    text = (quickstart[0] / "stdout.txt").read_text()
    for word in ("base", "SFT", "FedVA", "logs/"):
        assert word in text[-4000:]


def test_records_are_complete(quickstart):
    records = read_records(LogPaths(quickstart[0] / "logs").progress, RoundRecord)
    assert [record.round for record in records] == list(range(6))
    assert all(record.effective_clients >= 1 and record.validation for record in records)
    assert len(list(read_rows(LogPaths(quickstart[0] / "logs").client_metrics))) == 18


def test_the_same_seed_gives_the_same_bytes_and_a_killed_run_too(tmp_path):
    """Never stopped; stopped by Ctrl-C; killed by SIGKILL: the same final adapter, bit for bit."""
    folders = {name: tmp_path / name for name in ("whole", "interrupted", "killed")}
    for folder in folders.values():
        folder.mkdir()
        fccl("prepare", *SHORT[:4], folder=folder)
    fccl("run", *SHORT, folder=folders["whole"])
    for name, blow, exit_status in (("interrupted", signal.SIGINT, 130), ("killed", signal.SIGKILL, -9)):
        run = start("run", *SHORT, folder=folders[name])
        begun(run, folders[name], 3)
        run.send_signal(blow)
        rest = run.stdout.read()
        assert run.wait(60) == exit_status
        assert name == "killed" or "fccl run --resume" in rest
        fccl("run", "--resume", folder=folders[name])
        assert final_bytes(folders[name]) == final_bytes(folders["whole"])
        rounds = [
            row["round"] for row in read_rows(LogPaths(folders[name] / "logs").progress) if row["event"] == "round"
        ]
        assert rounds == [0, 1, 2, 3]
        assert len(list(read_rows(LogPaths(folders[name] / "logs").client_metrics))) == 12
    again = fccl("run", "--resume", "--fed-rounds", "3", folder=folders["killed"], check=False)
    assert (again.returncode, "2 VA rounds are done, and more SFT rounds come before them" in again.stderr) == (2, True)


def test_peft_reproduces_the_evaluation(quickstart, evaluation):
    """Base and adapter loaded by transformers and PEFT alone, and the perplexity of the test split written out
    by hand."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from fccl.model.base_model import base_path

    base = base_path("builtin:micro")
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), quickstart[0] / "logs" / "adapter"
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(base)
    nll, tokens = 0.0, 0
    for line in (quickstart[0] / "data" / "server" / "test_sft.jsonl").read_text().splitlines():
        row = json.loads(line)
        prompt = tokenizer(f"### Instruction:\n{row['instruction']}\n\n### Response:")["input_ids"]
        response = [*tokenizer(" " + row["response"])["input_ids"], tokenizer.eos_token_id]
        ids = torch.tensor([prompt + response])
        with torch.no_grad():
            log_probs = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        nll -= float(log_probs[torch.arange(ids.shape[1] - 1), ids[0, 1:]][len(prompt) - 1 :].sum())
        tokens += len(response)
    expected = figures(evaluation, "FedVA")["perplexity"]["value"]
    assert float(torch.tensor(nll / tokens).exp()) == pytest.approx(expected, rel=1e-4)


def test_export_writes_a_plain_model(quickstart, tmp_path):
    from transformers import AutoModelForCausalLM

    fccl("export", str(tmp_path / "merged"), "--merge", folder=quickstart[0])
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert "lora" not in " ".join(model.state_dict())
    again = fccl("export", str(tmp_path / "merged"), folder=quickstart[0], check=False)
    assert (again.returncode, "exists already" in again.stderr) == (1, True)


def test_evaluate_alone_as_the_script_does(quickstart):
    command = [
        sys.executable,
        str(ROOT / "evaluate.py"),
        "--sft",
        "50",
        "--va",
        "50",
        "--gen-samples",
        "3",
        "--gen-tokens",
        "30",
        "--per-client",
    ]
    result = subprocess.run(command, cwd=quickstart[0], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "FedVA" in result.stdout


@pytest.mark.skipif(not REAL.is_dir(), reason="the real data sets are not beside the project (../shared/data)")
def test_real_texts(tmp_path):
    data = ("--sft-data", str(REAL / "alpaca_en_demo.json"), "--va-data", str(REAL / "dpo_en_demo.json"))
    fccl("run", *data, "--num-clients", "4", "--non-iid-alpha", "0.3", "--fed-rounds", "1", folder=tmp_path)
    records = read_records(LogPaths(tmp_path / "logs").progress, RoundRecord)
    assert [len(record.clients) for record in records] == [4, 4]
    assert load_adapter(tmp_path / "logs" / "global_final.safetensors").tensors


def test_the_gpt2_preset_without_a_hub_ends_soon_with_the_ways_out(tmp_path):
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HOME": str(tmp_path / "hub"),
    }
    command = [sys.executable, "-m", "fccl", "run", "--preset", "gpt2"]
    result = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment, timeout=240
    )
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("error: gpt2: not in the local cache")
    assert "builtin:micro" in lines[1]
    assert not (tmp_path / "logs").exists()


def test_a_full_disk_ends_with_one_line_and_a_resumable_run(tmp_path):
    """A small file system of its own fills up in the middle of the run; emptied, the run goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("cannot mount a small file system here")
    try:
        fccl("prepare", *SHORT[:4], folder=tmp_path)
        result = fccl("run", *SHORT, "--log-dir", str(disk / "logs"), folder=tmp_path, check=False)
        assert result.returncode == 1
        assert "error: cannot write" in result.stderr
        assert "the disk is full" in result.stderr
        assert "Traceback" not in result.stderr
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        fccl("run", "--resume", "--log-dir", str(disk / "logs"), folder=tmp_path)
        fccl("run", *SHORT, folder=tmp_path)
        assert (disk / "logs" / "global_final.safetensors").read_bytes() == final_bytes(tmp_path)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
