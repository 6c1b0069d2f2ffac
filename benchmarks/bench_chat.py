"""A federation on a chat model, in the form of its template and in the plain one, with a TRL script among the clients.

    python benchmarks/bench_chat.py --sft-data FILE --va-data FILE [--model FOLDER] [--forms chat plain]

Four clients over an exchange directory, each a process of its own: three are `fccl client`, the fourth is a script with
TRL's SFTTrainer and DPOTrainer through `fccl.hf.federate`. Two rounds of each phase, then the test split. Both forms
have the same shards, seed and settings; prints the held-out figures of each with their intervals. The model is SmolLM2
(benchmarks/pretrained.py) where none is named. A script of people shortens its own rows: TRL drops a row whose response
does not fit.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.pretrained import default_cache, pretrained  # noqa: E402
from fccl.data.examples import PreferencePair, SftExample, conversation_of, prompt_of  # noqa: E402
from fccl.data.shards import load_shard, read_manifest  # noqa: E402
from fccl.paths import DataPaths, LogPaths  # noqa: E402
from fccl.records.evaluation import Estimate, EvaluationReport  # noqa: E402

CLIENTS, SCRIPT = 4, 3  # how many, and the number of the TRL script
RATES = {"sft": 1e-3, "va": 1e-4}
BETA, BATCH, RANK, ALPHA = 0.1, 4, 8, 16
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]  # LORA_TARGETS=all-linear
FRAME = 16  # tokens that a form puts around prompt and response, about


def main() -> int:
    """Print a table for each form. Returns 0."""
    options = read_options()
    if options.script:
        trl_client(options)
        return 0
    options.sft_data, options.va_data = str(Path(options.sft_data).resolve()), str(Path(options.va_data).resolve())
    options.model = options.model or str(pretrained(default_cache(), lambda line: print(line, file=sys.stderr)))
    with tempfile.TemporaryDirectory() as folder:
        for form in options.forms:
            started = time.monotonic()
            report, trained = federated(options, form, Path(folder))
            print(f"\n{form}: {trained}; {time.monotonic() - started:.0f} s in all\n", flush=True)
            print(table(report), flush=True)
    return 0


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="a chat model's folder")
    parser.add_argument("--sft-data", required=True)
    parser.add_argument("--va-data", required=True)
    parser.add_argument("--forms", nargs="*", choices=("plain", "chat"), default=("chat", "plain"))
    parser.add_argument("--sft-examples", type=int, default=150)
    parser.add_argument("--va-examples", type=int, default=60)
    parser.add_argument("--max-length", type=int, default=192)
    parser.add_argument("--base-precision", default="fp32", help="of the three built-in clients and the evaluation")
    parser.add_argument("--script", choices=("plain", "chat"), help=argparse.SUPPRESS)
    return parser.parse_args()


def federated(options: argparse.Namespace, form: str, folder: Path) -> tuple[EvaluationReport, str]:
    """One federation, and what its clients had."""
    shards = (*arguments(options), "--data-dir", str(folder / "data"))
    fccl("prepare", *shards)
    logs, exchange = LogPaths(folder / form / "logs"), folder / form / "exchange"
    own = ["--data-dir", str(folder / "data"), "--exchange-dir", str(exchange)]
    state = ["--state-dir", str(folder / form / "state")]
    built_in = [[*("-m", "fccl", "client", "--client-id", str(n)), *own, *state] for n in range(CLIENTS) if n != SCRIPT]
    script = [__file__, *again(options), "--script", form]
    environment = {"DATA_DIR": str(folder / "data"), "EXCHANGE_DIR": str(exchange), "STATE_DIR": state[1]}
    with processes([*built_in, script], environment):
        fccl("orchestrator", *shards, *run_arguments(options, form), *own[2:], "--log-dir", str(logs.root))
    report = EvaluationReport.model_validate_json(logs.evaluation_json.read_text())
    return report, sizes(folder / "data")


def arguments(options: argparse.Namespace) -> tuple[str, ...]:
    """Of the data."""
    return (
        *("--sft-data", options.sft_data, "--va-data", options.va_data, "--num-clients", str(CLIENTS)),
        *("--max-sft-examples", str(options.sft_examples), "--max-va-examples", str(options.va_examples)),
        *("--non-iid-alpha", "1", "--size-skew", "2"),
    )


def run_arguments(options: argparse.Namespace, form: str) -> tuple[str, ...]:
    """Of the run."""
    return (
        *("--model-name", options.model, "--prompt-format", form, "--fed-rounds", "2"),
        *("--max-length", str(options.max_length)),
        *("--sft-lr", str(RATES["sft"]), "--va-lr", str(RATES["va"]), "--dpo-beta", str(BETA)),
        *("--batch-size", str(BATCH), "--lora-r", str(RANK), "--lora-alpha", str(ALPHA), "--threads", "1"),
        *("--contribution-mode", "fedavg", "--base-precision", options.base_precision, "--gen-samples", "0"),
    )


def again(options: argparse.Namespace) -> list[str]:
    """The options that the script's process needs."""
    return [
        *("--model", options.model, "--sft-data", options.sft_data, "--va-data", options.va_data),
        *("--max-length", str(options.max_length)),
    ]


def fccl(*words: str) -> None:
    """A command of this project; its output is shown only where it fails."""
    done = subprocess.run([sys.executable, "-m", "fccl", *words], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"fccl {words[0]}: {done.stdout[-2000:]}{done.stderr[-2000:]}")


@contextmanager
def processes(commands: Sequence[Sequence[str]], environment: dict[str, str]) -> Iterator[None]:
    """These processes of Python while the block runs; those that have not ended by then are ended."""
    whole = os.environ | environment | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    quiet = {"stdout": subprocess.DEVNULL, "env": whole, "cwd": ROOT}
    begun = [subprocess.Popen([sys.executable, *command], **quiet) for command in commands]
    try:
        yield
    finally:
        for process in begun:
            process.terminate()
        for process in begun:
            process.wait()


def sizes(data: Path) -> str:
    """What the clients have."""
    counts = read_manifest(DataPaths(data)).samples_by_client()
    each = (f"{counts['sft'][client]} + {counts['va'][client]}" for client in range(CLIENTS))
    return f"clients' instructions + pairs: {', '.join(each)}"


def table(report: EvaluationReport) -> str:
    """The models side by side."""
    measures = {
        "response perplexity": lambda model: bounds(model.perplexity, "{:.3f}"),
        "nats a response": lambda model: f"{model.nll.value * model.tokens / report.sft_examples:.1f}",
        "preference accuracy, sum of log-probs": lambda model: bounds(model.preference.accuracy, "{:.1%}"),
        "preference accuracy, mean per token": lambda model: bounds(model.preference_per_token.accuracy, "{:.1%}"),
        "mean margin, nats": lambda model: bounds(model.margin, "{:+.2f}"),
    }
    lines = [f"{report.sft_examples} instructions, {report.va_pairs} pairs, {report.truncated} cut", ""]
    lines += ["| | " + " | ".join(model.name for model in report.models) + " |", "|---|" + "---:|" * len(report.models)]
    lines += [f"| {name} | " + " | ".join(map(of, report.models)) + " |" for name, of in measures.items()]
    lines += ["", "| second against first | measure | | |", "|---|---|---:|---|"]
    for pair in report.comparisons:
        for each in pair.differences:
            found = bounds(each.estimate, "{:.4f}")
            lines.append(f"| {pair.second} against {pair.first} | {each.measure} | {found} | {each.verdict} |")
    return "\n".join(lines)


def bounds(estimate: Estimate | None, form: str) -> str:
    """A figure with its interval."""
    if estimate is None:
        return "–"
    return f"{form.format(estimate.value)} [{form.format(estimate.low)}, {form.format(estimate.high)}]"


# --- the script of a person


def trl_client(options: argparse.Namespace) -> None:
    """Takes part with TRL's trainers on the shard of this client."""
    import transformers
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    from fccl.hf import federate

    shard = load_shard(DataPaths(Path(os.environ["DATA_DIR"])), SCRIPT)
    rows = Rows(transformers.AutoTokenizer.from_pretrained(options.model), options.script, options.max_length)
    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS, task_type="CAUSAL_LM")
    with tempfile.TemporaryDirectory() as scratch:
        usual: dict[str, Any] = {"output_dir": scratch, "use_cpu": True, "bf16": False, "gradient_checkpointing": False}
        usual |= {"save_strategy": "no", "report_to": "none", "max_length": None, "num_train_epochs": 1}
        usual |= {"per_device_train_batch_size": BATCH, "max_grad_norm": 1.0, "disable_tqdm": True}
        sft = SFTConfig(learning_rate=RATES["sft"], **usual)
        va = DPOConfig(learning_rate=RATES["va"], beta=BETA, **usual)
        instructions, pairs = (Dataset.from_list([rows.of(row) for row in part]) for part in (shard.sft, shard.va))
        first = SFTTrainer(options.model, args=sft, train_dataset=instructions, peft_config=lora)
        second = DPOTrainer(options.model, args=va, train_dataset=pairs, peft_config=lora)
        federation = federate(sft=first, va=second, client_id=SCRIPT)
        for task in federation:
            federation.train(task)


class Rows:
    """Examples as TRL reads them, in one form, short enough that nothing of them is dropped."""

    def __init__(self, tokenizer: Any, form: str, max_length: int) -> None:
        self.tokenizer, self.form, self.most = tokenizer, form, max_length // 2 - FRAME

    def of(self, example: SftExample | PreferencePair) -> dict[str, Any]:
        """One row: a prompt, and a completion or two."""
        if isinstance(example, SftExample):
            answers = {"completion": example.response}
        else:
            answers = {"chosen": example.preferred, "rejected": example.dispreferred}
        return {"prompt": self._asked(example)} | {name: self._answer(text) for name, text in answers.items()}

    def _asked(self, example: SftExample | PreferencePair) -> Any:
        if self.form == "plain":
            return prompt_of(self._short(example.instruction, last=True))
        turns = conversation_of(example)
        whole = self.tokenizer("".join(turn.content for turn in turns))["input_ids"]
        if len(whole) > self.most:  # the last question alone, as far as it fits
            turns = turns[-1:]
        return [{"role": turn.role, "content": self._short(turn.content, last=True)} for turn in turns]

    def _answer(self, text: str) -> Any:
        short = self._short(text, last=False)
        return f" {short}" if self.form == "plain" else [{"role": "assistant", "content": short}]

    def _short(self, text: str, last: bool) -> str:
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) <= self.most:
            return text
        return str(self.tokenizer.decode(ids[-self.most :] if last else ids[: self.most]))


if __name__ == "__main__":
    raise SystemExit(main())
