"""A federation on a chat model, in the form of its template and in the plain one, with a TRL script among the clients.

    python benchmarks/bench_chat.py --sft-data FILE --va-data FILE [--model FOLDER] [--out FOLDER] [--forms chat plain]

Four clients over an exchange directory, each a process of its own: three are `fccl client`, the fourth is a script with
TRL's SFTTrainer and DPOTrainer through `fccl.hf.federate`. Two rounds of each phase, then the test split. Both forms
have the same shards, seed and settings, and nothing is cut in either: of the instructions those are taken that fit, of
a pair the end of its last question and the beginning of both answers. Prints the held-out figures of each form with
their intervals, then both forms beside each other on the same examples. The model is SmolLM2
(benchmarks/pretrained.py) where none is named. With `--out` a command that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from benchmarks.pretrained import default_cache, pretrained  # noqa: E402
from fccl.data.examples import (  # noqa: E402
    PreferencePair,
    SftExample,
    conversation_of,
    prompt_of,
    write_examples,
)
from fccl.data.formats import parse_sft, parse_va  # noqa: E402
from fccl.data.shards import load_shard, read_manifest  # noqa: E402
from fccl.data.sources import open_source  # noqa: E402
from fccl.evaluation.bootstrap import Bootstrap  # noqa: E402
from fccl.evaluation.suite import Evaluated, EvaluationSplit, Listen, ToEvaluate, one_by_one  # noqa: E402
from fccl.federation.run_evaluation import evaluate_run, run_adapters, write_report  # noqa: E402
from fccl.federation.run_folder import RunFolder  # noqa: E402
from fccl.library.narrow import evaluation_options, settings_of  # noqa: E402
from fccl.model.encoding import encode  # noqa: E402
from fccl.model.loading import load_model  # noqa: E402
from fccl.paths import DataPaths, LogPaths  # noqa: E402
from fccl.records.evaluation import Estimate, EvaluationReport, verdict  # noqa: E402
from fccl.records.run import RoundRecord  # noqa: E402
from fccl.specs import PromptFormat, TextForm  # noqa: E402
from fccl.storage.files import write_text  # noqa: E402
from fccl.storage.reading import read_records  # noqa: E402

CLIENTS, SCRIPT = 4, 3  # how many, and the number of the TRL script
RATES = {"sft": 1e-3, "va": 1e-4}
BETA, BATCH, RANK, ALPHA = 0.1, 4, 8, 16
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]  # LORA_TARGETS=all-linear
SPARE = 12  # tokens that a cut text may have more of than its part had
SEED = 42
FORMS: tuple[PromptFormat, ...] = ("chat", "plain")
Figures = Mapping[str, Mapping[str, Sequence[float]]]  # model -> measure -> a figure an example


def main() -> int:
    """Print a table for each form, then both beside each other. Returns 0."""
    options = read_options()
    if options.script:
        trl_client(options)
        return 0
    options.model = options.model or str(pretrained(default_cache(), lambda line: print(line, file=sys.stderr)))
    place = nullcontext(options.out) if options.out else tempfile.TemporaryDirectory()
    with place as name:
        folder = Path(name).resolve()
        fitting(options, folder)
        for form in options.forms:
            started = time.monotonic()
            trained = federated(options, form, folder)
            report = judged(folder, form)
            print(f"\n{form}: {trained}; {time.monotonic() - started:.0f} s now\n\n{table(report)}", flush=True)
        if len(options.forms) == 2:
            print("\n" + beside(*(figures(folder, form) for form in ("plain", "chat"))), flush=True)
    return 0


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="a chat model's folder")
    parser.add_argument("--sft-data", required=True)
    parser.add_argument("--va-data", required=True)
    parser.add_argument("--out", default="", help="where the runs are kept (default: nowhere)")
    parser.add_argument("--forms", nargs="*", choices=FORMS, default=FORMS)
    parser.add_argument("--sft-examples", type=int, default=150)
    parser.add_argument("--va-examples", type=int, default=60)
    parser.add_argument("--max-length", type=int, default=192)
    parser.add_argument("--base-precision", default="fp32", help="of the three built-in clients and the evaluation")
    parser.add_argument("--script", choices=FORMS, help=argparse.SUPPRESS)
    return parser.parse_args()


def fitting(options: argparse.Namespace, folder: Path) -> None:
    """Files with the examples as both forms read them; those that are there stay."""
    import transformers

    texts = Texts(transformers.AutoTokenizer.from_pretrained(options.model), options.max_length)
    if not data_file(folder, "va").is_file():
        sft, va = options.sft_data, options.va_data
        instructions = parse_sft(open_source(sft, "sft").rows, sft).examples
        pairs = parse_va(open_source(va, "va").rows, va).examples
        write_examples(data_file(folder, "sft"), [each for each in instructions if texts.fits(each)])
        write_examples(data_file(folder, "va"), [texts.cut(pair) for pair in pairs])


def data_file(folder: Path, phase: str) -> Path:
    return folder / f"{phase}.jsonl"


class Texts:
    """Lengths of texts in the model's tokens, and texts cut to them."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self.tokenizer, self.room = tokenizer, max_length - SPARE - max(self._frame(tokenizer, form) for form in FORMS)

    def fits(self, example: SftExample) -> bool:
        """Whether the example needs no cut in either form."""
        asked = sum(len(self._ids(turn.content)) for turn in conversation_of(example))
        return asked + len(self._ids(example.response)) <= self.room

    def cut(self, pair: PreferencePair) -> PreferencePair:
        """The pair with the end of its last question and the beginning of both answers."""
        question = self.room // 3
        asked = self._cut(conversation_of(pair)[-1].content, slice(-question, None))
        answers = slice(self.room - question)
        return PreferencePair(asked, self._cut(pair.preferred, answers), self._cut(pair.dispreferred, answers))

    def _frame(self, tokenizer: Any, form: PromptFormat) -> int:
        """The tokens that a form puts around an instruction and its response."""
        example = SftExample("Say it.", "It.")
        ((row,),) = encode(tokenizer, "sft", [example], max_length=10_000, text=TextForm(prompt=form))
        texts = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("Say it.", "It."))
        return len(row.ids) - sum(map(len, texts))

    def _cut(self, text: str, part: slice) -> str:
        ids = self._ids(text)
        return text if len(ids[part]) == len(ids) else str(self.tokenizer.decode(ids[part])).strip()

    def _ids(self, text: str) -> Sequence[int]:
        ids: Sequence[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def federated(options: argparse.Namespace, form: str, folder: Path) -> str:
    """One federation, or what is left of it; and what its clients had."""
    shards = (*arguments(options, folder), "--data-dir", str(folder / "data"))
    fccl("prepare", "--keep", *shards)
    logs, exchange = LogPaths(folder / form / "logs"), folder / form / "exchange"
    own = ["--data-dir", str(folder / "data"), "--exchange-dir", str(exchange)]
    state = ["--state-dir", str(folder / form / "state")]
    built_in = [[*("-m", "fccl", "client", "--client-id", str(n)), *own, *state] for n in range(CLIENTS) if n != SCRIPT]
    script = [__file__, *again(options), "--script", form]
    environment = {"DATA_DIR": str(folder / "data"), "EXCHANGE_DIR": str(exchange), "STATE_DIR": state[1]}
    if not logs.evaluation_json.is_file():
        with processes([*built_in, script], environment):
            fccl("orchestrator", *shards, *run_arguments(options, form), *own[2:], "--log-dir", str(logs.root))
    return "; ".join([sizes(folder / "data"), *left_out(logs)])


def left_out(logs: LogPaths) -> Iterator[str]:
    """The answers that did not count: with one of them the forms had other federations."""
    for record in read_records(logs.progress, RoundRecord):
        for each in record.excluded:
            yield f"NOT COUNTED: client {each.client_id} in round {record.round + 1}: {each.reason}"


def judged(folder: Path, form: str) -> EvaluationReport:
    """The models of a form's run on the test split; the figures of single examples are kept beside the report."""
    logs = LogPaths(folder / form / "logs")
    if not logs.evaluation_json.is_file():
        settings, found = settings_of(RunFolder.at(logs.root).recorded("evaluate")), list[Evaluated]()
        model, data = load_model(settings.model_spec()), DataPaths(folder / "data")

        def evaluate(subjects: Sequence[ToEvaluate], split: EvaluationSplit, listen: Listen) -> list[Evaluated]:
            found.extend(one_by_one(model, settings.threads)(subjects, split, listen))
            return found

        asked = evaluation_options(settings, settings.seed)
        report = evaluate_run(model, run_adapters(logs), data, logs, asked, {}, evaluate=evaluate)
        write_text(figures_file(folder, form), json.dumps({each.name: by_example(each) for each in found}))
        write_report(logs, report)
    return EvaluationReport.model_validate_json(logs.evaluation_json.read_text())


def by_example(found: Evaluated) -> dict[str, list[float]]:
    """A model's figures: nats of each response, margin of each pair."""
    return {"nats": found.sft.nll.tolist(), "margins": found.pairs.margins.tolist()}


def figures_file(folder: Path, form: str) -> Path:
    return folder / form / "figures.json"


def figures(folder: Path, form: str) -> Figures:
    """What `judged` has kept."""
    found: Figures = json.loads(figures_file(folder, form).read_text())
    return found


def arguments(options: argparse.Namespace, folder: Path) -> tuple[str, ...]:
    """Of the data."""
    files = {phase: str(data_file(folder, phase)) for phase in ("sft", "va")}
    return (
        *("--sft-data", files["sft"], "--va-data", files["va"], "--num-clients", str(CLIENTS), "--seed", str(SEED)),
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
        *("--client-timeout-s", "14400", "--no-evaluate"),  # a form without its script is no form to compare
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
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "env": whole, "cwd": ROOT}
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


def beside(plain: Figures, chat: Figures) -> str:
    """Both forms on the same examples, each model of one against the same model of the other."""
    lines = ["| model | measure | plain | chat | chat less plain | |", "|---|---|---:|---:|---:|---|"]
    for name in plain:
        nats, margins = (pair_of(plain, chat, name, measure) for measure in ("nats", "margins"))
        choices = np.asarray(margins > 0, dtype=np.float64)
        lines.append(difference_row(name, "nats a response", nats, "{:.2f}", higher_is_better=False))
        lines.append(difference_row(name, "preference accuracy, sum of log-probs", choices, "{:.1%}", True))
        lines.append(difference_row(name, "mean margin, nats", margins, "{:+.2f}", True))
    return "\n".join(lines)


def pair_of(plain: Figures, chat: Figures, name: str, measure: str) -> Any:
    """A measure of one model in both forms: (2, n)."""
    return np.array([form[name][measure] for form in (plain, chat)])


def difference_row(name: str, measure: str, values: Any, form: str, higher_is_better: bool) -> str:
    """A row: both means, and the paired difference with its interval; `values` are (2, n)."""
    found = Bootstrap(10_000, SEED).mean(values[1] - values[0])
    means = " | ".join(form.format(mean) for mean in values.mean(axis=1))
    said = verdict(found, neutral=0.0, higher_is_better=higher_is_better)
    return f"| {name} | {measure} | {means} | {bounds(found, form)} | {said} |"


def bounds(estimate: Estimate | None, form: str) -> str:
    """A figure with its interval."""
    if estimate is None:
        return "–"
    return f"{form.format(estimate.value)} [{form.format(estimate.low)}, {form.format(estimate.high)}]"


# --- the script of a person


def trl_client(options: argparse.Namespace) -> None:
    """Takes part with TRL's trainers on the shard of this client."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    from fccl.hf import federate

    shard = load_shard(DataPaths(Path(os.environ["DATA_DIR"])), SCRIPT)
    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS, task_type="CAUSAL_LM")
    with tempfile.TemporaryDirectory() as scratch:
        usual: dict[str, Any] = {"output_dir": scratch, "use_cpu": True, "bf16": False, "gradient_checkpointing": False}
        usual |= {"save_strategy": "no", "report_to": "none", "max_length": None, "num_train_epochs": 1}
        usual |= {"per_device_train_batch_size": BATCH, "max_grad_norm": 1.0, "disable_tqdm": True}
        sft = SFTConfig(learning_rate=RATES["sft"], **usual)
        va = DPOConfig(learning_rate=RATES["va"], beta=BETA, **usual)
        instructions, pairs = (
            Dataset.from_list([row_of(example, options.script) for example in part]) for part in (shard.sft, shard.va)
        )
        first = SFTTrainer(options.model, args=sft, train_dataset=instructions, peft_config=lora)
        second = DPOTrainer(options.model, args=va, train_dataset=pairs, peft_config=lora)
        federation = federate(sft=first, va=second, client_id=SCRIPT)
        for task in federation:
            federation.train(task)


def row_of(example: SftExample | PreferencePair, form: str) -> dict[str, Any]:
    """One example as TRL reads it in a form: a prompt, and a completion or two."""
    if isinstance(example, SftExample):
        answers = {"completion": example.response}
    else:
        answers = {"chosen": example.preferred, "rejected": example.dispreferred}
    if form == "plain":
        return {"prompt": prompt_of(example.instruction)} | {name: f" {text}" for name, text in answers.items()}
    turns = [{"role": turn.role, "content": turn.content} for turn in conversation_of(example)]
    return {"prompt": turns} | {name: [{"role": "assistant", "content": text}] for name, text in answers.items()}


if __name__ == "__main__":
    raise SystemExit(main())
