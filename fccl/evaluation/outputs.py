"""A model's answers in the form that AlpacaEval reads: one JSON array a model.

Each row has `instruction`, `output`, `generator` and `dataset`. AlpacaEval compares two such files by a judge
of its own: `alpaca_eval --model_outputs a.json --reference_outputs b.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from fccl.adapters.adapter import Adapter
from fccl.data.examples import SftExample
from fccl.model.generate import generate
from fccl.model.language_model import LanguageModel
from fccl.records.evaluation import EvaluationOptions
from fccl.storage.files import write_text
from fccl.storage.temporary import sweep_for

DATASET = "fccl test split"


def outputs_path(path: Path, name: str) -> Path:
    """The file of one model beside the others.

    >>> outputs_path(Path("answers.json"), "FedVA").name
    'answers.FedVA.json'
    """
    return path.with_name(f"{path.stem}.{name}{path.suffix or '.json'}")


def write_outputs(
    model: LanguageModel,
    adapters: Mapping[str, Adapter | None],
    examples: Sequence[SftExample],
    options: EvaluationOptions,
    path: Path,
) -> list[Path]:
    """Write every adapter's greedy answers to all examples, in order; None is the base model. Returns the files.

    Raises `StorageError`. Leaves the last adapter loaded.
    """
    instructions, files = [example.instruction for example in examples], []
    for name, adapter in adapters.items():
        model.load(adapter or model.initial_adapter(seed=0))
        answers = generate(model, examples, options.gen_tokens, options.batch_size)
        files.append(outputs_path(path, name))
        sweep_for(files[-1])
        write_text(files[-1], _rows(f"{model.spec.name} {name}", instructions, answers))
    return files


def _rows(generator: str, instructions: Sequence[str], answers: Sequence[str]) -> str:
    rows = [
        {"instruction": instruction, "output": answer, "generator": generator, "dataset": DATASET}
        for instruction, answer in zip(instructions, answers, strict=True)
    ]
    return json.dumps(rows, ensure_ascii=False, indent=2) + "\n"
