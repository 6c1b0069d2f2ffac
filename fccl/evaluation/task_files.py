"""The test split as two tasks of lm-evaluation-harness, so that any model can be judged on it.

    fccl_response   log p of the response: `perplexity` is exp of the mean NLL of a whole response
    fccl_choice     two-way choice by summed log p: `acc` is the preference accuracy

    lm_eval --model hf --model_args pretrained=MODEL --tasks fccl_response,fccl_choice --include_path FOLDER

The texts are the tokens that `fccl evaluate` scores, decoded: the prompt that the model was trained with, and the
response up to the token that ends it. The harness encodes them again and splits prompt and response by rules of its
own. An example that would not come out as the same tokens, or that was cut to fit the context, is left out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fccl.data.examples import PreferencePair, SftExample
from fccl.errors import DataError
from fccl.model.encoding import Encoded, encode_pairs, encode_sft
from fccl.model.language_model import LanguageModel
from fccl.storage.files import write_text
from fccl.storage.temporary import sweep_for

RESPONSE, CHOICE = "fccl_response", "fccl_choice"
_YAML = """\
# Written by `fccl evaluate --write-tasks`. The data's path is absolute: write the files again where they have moved.
task: {task}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: {kind}
doc_to_text: "{{{{prompt}}}}"
{fields}
target_delimiter: ""
num_fewshot: 0
metric_list:
  - metric: {metric}
    aggregation: {aggregation}
    higher_is_better: {higher}
metadata:
  version: 1.0
"""


@dataclass(frozen=True)
class _Form:
    """One of the two tasks: what differs in its file."""

    task: str
    kind: str
    fields: str
    metric: str
    aggregation: str
    higher: str


_RESPONSES = _Form(RESPONSE, "loglikelihood", 'doc_to_target: "{{response}}"', "perplexity", "perplexity", "false")
_CHOICES = _Form(
    CHOICE,
    "multiple_choice",
    'doc_to_choice: "{{[first, second]}}"\ndoc_to_target: right',
    "acc",
    "mean",
    "true",
)


def write_tasks(
    model: LanguageModel, sft: Sequence[SftExample], va: Sequence[PreferencePair], folder: Path
) -> dict[str, int]:
    """Write both tasks with their data to a folder. Returns the examples of each task, by its name.

    Raises `StorageError`, and `DataError` where no example comes out as the same tokens.
    """
    tokenizer, written = model.tokenizer, (model.spec.max_length, model.spec.text)
    said = (_texts(model, [row]) for row in encode_sft(tokenizer, sft, *written))
    pairs = (_texts(model, rows) for rows in encode_pairs(tokenizer, va, *written))
    responses = [{"prompt": texts[0], "response": texts[1]} for texts in said if texts]
    choices = [_choice(texts, index % 2) for index, texts in enumerate(filter(None, pairs))]
    for form, rows in ((_RESPONSES, responses), (_CHOICES, choices)):
        _write(form, rows, folder)
    return {RESPONSE: len(responses), CHOICE: len(choices)}


def harness_ids(model: LanguageModel, text: str, special: bool | None = None) -> list[int]:
    """The ids of a text, as the harness's own model for transformers encodes it.

    A beginning-of-text token that the text has already is not set before it once more.
    """
    begins = model.tokenizer.bos_token
    wanted = not (begins and text.startswith(begins)) if special is None else special
    return list(model.tokenizer(text, add_special_tokens=wanted)["input_ids"])


def _texts(model: LanguageModel, rows: Sequence[Encoded]) -> tuple[str, ...] | None:
    """The prompt of these rows and their responses; None where the harness would see other tokens."""
    prompt, *_ = (_text(model, row.ids[: row.prompt_length]) for row in rows)
    responses = [_text(model, row.ids[row.prompt_length :]) for row in rows]
    whole = not any(row.truncated or row.learnt is not None for row in rows)
    if prompt != prompt.rstrip() or not whole:  # white space would count to the response
        return None
    known = harness_ids(model, prompt)
    for row, response in zip(rows, responses, strict=True):
        if harness_ids(model, prompt + response) != list(row.ids) or len(known) != row.prompt_length:
            return None
    return (prompt, *responses)


def _text(model: LanguageModel, ids: Sequence[int]) -> str:
    return str(model.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def _choice(texts: Sequence[str], right: int) -> dict[str, Any]:
    """The chosen response comes first or second by turns: of a tie the harness takes the first."""
    prompt, *answers = texts
    first, second = answers[::-1] if right else answers
    return {"prompt": prompt, "first": first, "second": second, "right": right}


def _write(form: _Form, rows: Sequence[dict[str, Any]], folder: Path) -> None:
    if not rows:
        raise DataError(
            f"{form.task}: the harness would encode every example of the test split otherwise",
            hint="a chat template whose prompt ends in white space cannot be written as a task",
        )
    data = folder.resolve() / f"{form.task}.jsonl"
    _write_whole(data, "".join(f"{json.dumps(row)}\n" for row in rows))
    text = _YAML.format(
        task=form.task,
        data=json.dumps(str(data)),
        kind=form.kind,
        fields=form.fields,
        metric=form.metric,
        aggregation=form.aggregation,
        higher=form.higher,
    )
    _write_whole(folder / f"{form.task}.yaml", text)


def _write_whole(path: Path, text: str) -> None:
    """Write it, all or nothing; what a killed command left half-written of it goes."""
    sweep_for(path)
    write_text(path, text)
