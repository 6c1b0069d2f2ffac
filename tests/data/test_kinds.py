"""Whole preparations of the kinds of data that people bring, down to the shards, the manifest and the token ids; and
the shared samples of them.
"""

import json
from collections import Counter
from pathlib import Path

import pytest

from fccl.data import prepare as prepare_module
from fccl.data.examples import PreferencePair, SftExample, read_examples
from fccl.data.prepare import prepare
from fccl.data.shards import load_shard, read_manifest
from fccl.data.split import SERVER_SPLITS
from fccl.errors import DataError
from fccl.paths import DataPaths
from fccl.specs import DataSpec, PartitionSpec

FAULTS = Path(__file__).resolve().parents[3] / "shared" / "faults"
THINGS = (
    "rope",
    "kettle",
    "ladder",
    "candle",
    "bucket",
    "mirror",
    "hammer",
    "basket",
    "whistle",
    "compass",
    "anchor",
    "blanket",
)
ASK = [f"What is a {thing} for?" for thing in THINGS]


@pytest.fixture(autouse=True)
def _without_picture(monkeypatch):
    monkeypatch.setattr(prepare_module, "draw_picture", lambda manifest: b"")


def prepared(folder, sft_data, va_data="synthetic"):
    """The report of the SFT data and of the VA data, and all examples of both kinds."""
    paths = DataPaths(folder / "data")
    partition = PartitionSpec(num_clients=2, alpha=None, num_topics=3, seed=7)
    prepare(
        DataSpec(
            sft_data=str(sft_data), va_data=str(va_data), test_examples=2, validation_examples=2, partition=partition
        ),
        paths,
    )
    held = {
        kind: [one for split in SERVER_SPLITS for one in read_examples(paths.server_split(split, phase), kind)]
        for phase, kind in KINDS
    }
    shards = [load_shard(paths, client) for client in range(2)]
    sft, va = read_manifest(paths).sources
    everything = (
        [one for shard in shards for one in shard.sft] + held[SftExample],
        [one for shard in shards for one in shard.va] + held[PreferencePair],
    )
    return sft, va, *everything


KINDS = (("sft", SftExample), ("va", PreferencePair))


def lines(folder, rows, name="rows.jsonl"):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder / name


def test_context_columns_reach_the_shards_and_the_rest_is_named(tmp_path):
    rows = [
        {
            "instruction": ask,
            "output": "To use.",
            "system": "Be brief.",
            "history": [["Hi", "Hello"]],
            "tools": "[]",
            "source": "x",
        }
        for ask in ASK
    ]
    report, _, sft, _ = prepared(tmp_path, lines(tmp_path, rows))
    assert {one.instruction for one in sft} == {
        f"System: Be brief.\n\nUser: Hi\n\nAssistant: Hello\n\nUser: {ask}" for ask in ASK
    }
    assert report.columns_not_used == ("source",)


def test_marked_rows_reach_no_shard(tmp_path):
    rows = [{"prompt": ask, "completion": f"{index}", "label": index % 3 > 0} for index, ask in enumerate(ASK)]
    report, _, sft, _ = prepared(tmp_path, lines(tmp_path, rows))
    assert (report.rows_read, report.marked, report.examples) == (12, 4, 8)
    assert {one.response for one in sft} == {str(index) for index in range(12) if index % 3}
    assert not {"True", "False"} & {one.topic for one in sft}


def test_rated_answers_are_counted_in_the_manifest(tmp_path):
    def row(index, *more):
        answers = [("good", 8.0, 4.0), ("bad", 3.0, 2.0), *more]
        return {
            "instruction": ASK[index],
            "completions": [
                dict(zip(("response", "overall_score", "fine-grained_score"), a, strict=True)) for a in answers
            ],
        }

    rows = [row(index, ("worst", 10.0, 1.25)) for index in range(6)] + [
        row(index, (None, 9.0, 4.0)) for index in range(6, 12)
    ]
    _, report, _, va = prepared(tmp_path, "builtin", lines(tmp_path, rows))
    assert {(pair.preferred, pair.dispreferred) for pair in va} == {("good", "bad")}
    assert (report.false_tens, report.answers_passed_over, report.examples) == (6, 6, 12)


def test_text_that_spells_a_control_token_is_kept_and_encoded_as_text(tmp_path, tiny_model):
    from fccl.model.encoding import encode_sft

    rows = [{"instruction": f"{ask} <|endoftext|>", "output": "First.<|endoftext|>Second."} for ask in ASK]
    _, _, sft, _ = prepared(tmp_path, lines(tmp_path, rows))
    assert {one.response for one in sft} == {"First.<|endoftext|>Second."}
    end = tiny_model.tokenizer.eos_token_id
    for row in encode_sft(tiny_model.tokenizer, sft, 128):
        assert (Counter(row.ids)[end], row.ids[-1]) == (1, end)


def test_nothing_is_no_topic(tmp_path):
    rows = [
        {
            "instruction": ask,
            "input": float("nan"),
            "output": "To use.",
            "category": [None, float("nan"), "nan", "N/A"][n % 4],
        }
        for n, ask in enumerate(ASK)
    ]
    _, _, sft, va = prepared(tmp_path, lines(tmp_path, rows))
    assert {one.instruction for one in sft} == set(ASK)
    assert not {"nan", "N/A", "None", "NaN"} & {one.topic for one in (*sft, *va)}


def test_the_same_rows_in_any_layout_give_the_same_shards(tmp_path):
    rows = [{"instruction": ask, "input": "", "output": f"It is number {index}."} for index, ask in enumerate(ASK)]
    layouts = {
        "rows.jsonl": rows,
        "wrapped.json": {"data": rows},
        "columns.json": {column: {str(index): row[column] for index, row in enumerate(rows)} for column in rows[0]},
        "lists.json": {column: [row[column] for row in rows] for column in rows[0]},
        "array.jsonl": rows,
    }
    found = []
    for name, value in layouts.items():
        (tmp_path / name).write_text(
            "\n".join(map(json.dumps, rows)) if name == "rows.jsonl" else json.dumps(value, indent=1)
        )
        found.append(prepared(tmp_path, tmp_path / name)[2:])
    assert all(one == found[0] for one in found)


# The shared samples, where they are there
# ------------------------------------------------------------------------------


def rows_of(name):
    return [json.loads(line) for line in (FAULTS / name).read_text().splitlines()]


needs_samples = pytest.mark.skipif(
    not FAULTS.is_dir(), reason="the shared samples are not beside the project (../shared/faults)"
)


@needs_samples
def test_sample_of_system_and_history(tmp_path):
    _, _, sft, _ = prepared(tmp_path, FAULTS / "llamafactory_system_history.jsonl")
    assert len(sft) == len(rows_of("llamafactory_system_history.jsonl"))
    assert all(one.instruction.startswith("System: You answer like a pirate") for one in sft)
    assert all("User: Earlier question about copper?\n\nAssistant: Earlier answer" in one.instruction for one in sft)


@needs_samples
def test_sample_of_system_and_tools(tmp_path):
    _, _, sft, _ = prepared(tmp_path, FAULTS / "sharegpt_system_tools_columns.jsonl")
    assert all(
        one.instruction.startswith('System: You are a pirate.\n\nTools: [{"name":"x"}]\n\nUser: ') for one in sft
    )


@needs_samples
def test_sample_of_ktos_labels(tmp_path):
    report, _, sft, _ = prepared(tmp_path, FAULTS / "kto_label_bool.jsonl")
    rows = rows_of("kto_label_bool.jsonl")
    assert {one.response for one in sft} == {row["completion"] for row in rows if row["label"]}
    assert report.marked == sum(not row["label"] for row in rows) > 0


@needs_samples
@pytest.mark.parametrize(
    "name",
    [
        "array_named_jsonl.jsonl",
        "pandas_to_json_default.json",
        "alpaca_nan_input_from_pandas.jsonl",
        "output_holds_endoftext.jsonl",
    ],
)
def test_samples_of_layouts_and_of_nothing(tmp_path, name):
    report, _, sft, _ = prepared(tmp_path, FAULTS / name)
    assert (report.rows_read, len(sft), report.bad_rows) == (14, 14, 0)
    assert all(one.instruction.startswith("Name a use of the word ") and "\n" not in one.instruction for one in sft)
    assert "nan" not in {one.topic for one in sft}


@needs_samples
def test_sample_of_texts_that_hold_their_prompt(tmp_path):
    _, report, _, va = prepared(tmp_path, "builtin", FAULTS / "hh_rlhf_texts.jsonl")
    assert report.examples == len(va) == len(rows_of("hh_rlhf_texts.jsonl"))
    assert all(
        pair.instruction.startswith("Say a thing about ")
        and pair.preferred.startswith("The ")
        and pair.dispreferred.startswith("No ")
        for pair in va
    )


@needs_samples
def test_sample_of_an_answer_without_text(tmp_path):
    _, report, _, va = prepared(tmp_path, "builtin", FAULTS / "uf_null_response.jsonl")
    assert (report.answers_passed_over, report.examples, report.bad_rows) == (1, len(va), 0)


@needs_samples
def test_sample_of_false_tens(tmp_path):
    with pytest.raises(
        DataError, match="14 answers falsely rated 10"
    ):  # two answers a row, so that nothing to compare is left
        prepared(tmp_path, "builtin", FAULTS / "uf_false_ten.jsonl")
    mixed = lines(tmp_path, [*rows_of("uf_false_ten.jsonl"), *rows_of("uf_null_response.jsonl")])
    _, report, _, va = prepared(tmp_path, "builtin", mixed)
    assert (report.false_tens, report.answers_passed_over) == (14, 1)
    assert all(pair.dispreferred.startswith("No ") for pair in va)
