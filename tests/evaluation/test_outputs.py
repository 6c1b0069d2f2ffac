"""A model's answers as AlpacaEval reads them."""

import json

from fccl.evaluation.outputs import write_outputs
from fccl.evaluation.suite import evaluate_model


def test_every_model_has_a_file_with_a_row_for_every_instruction_in_order(tiny_model, split, taught, options, tmp_path):
    adapters = {"base": None, "SFT": taught[1]}
    files = write_outputs(tiny_model, adapters, split.sft, options, tmp_path / "answers.json")
    assert [file.name for file in files] == ["answers.base.json", "answers.SFT.json"]
    for (name, adapter), file in zip(adapters.items(), files, strict=True):
        rows = json.loads(file.read_text("utf-8"))
        assert [row["instruction"] for row in rows] == [example.instruction for example in split.sft]
        assert {(row["generator"], row["dataset"]) for row in rows} == {
            (f"{tiny_model.spec.name} {name}", "fccl test split")
        }
        shown = evaluate_model(tiny_model, name, adapter, split, options).generations
        said = {row["instruction"]: row["output"] for row in rows}
        assert {each.instruction: each.greedy for each in shown} == {
            each.instruction: said[each.instruction] for each in shown
        }
