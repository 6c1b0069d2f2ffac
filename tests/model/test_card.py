"""What a card says of the base model: a name that others can load, or how to get it; nothing of the machine's
folders."""

import dataclasses
import re

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM

from fccl.adapters.adapter import Adapter
from fccl.model.card import CardWriter
from fccl.records.manifest import Manifest, SourceReport
from fccl.specs import DataSpec, ModelSpec, PartitionSpec, RoundPlan

PLAN = RoundPlan(fed_rounds=2, num_clients=4, clients_per_round=3, seed=5)
ADAPTER = Adapter({"m.lora_A.weight": torch.zeros(2, 3), "m.lora_B.weight": torch.zeros(4, 2)})


def manifest(*names):
    sources = tuple(
        SourceReport(
            phase="sft", name=name, kind="file" if "/" in name else "builtin", sha256="0", rows_read=1234, examples=9
        )
        for name in names
    )
    spec = DataSpec(
        sft_data="builtin",
        va_data="builtin",
        max_sft_examples=0,
        max_va_examples=0,
        test_examples=1,
        validation_examples=1,
        skip_bad_rows=False,
        partition=PartitionSpec(num_clients=4, alpha=0.5, seed=5),
    )
    empty = {"sft": 0, "va": 0}
    counts = {"train": empty, "validation": empty, "test": empty}
    return Manifest(
        spec=spec,
        sources=sources,
        counts=counts,
        topics=(),
        topics_by_client={"sft": (), "va": ()},
        noisy_clients=(),
        files={},
    )


def cards(*made_of, sources=("builtin",)):
    spec = ModelSpec(name=made_of[-1], lora_r=2, lora_alpha=4, lora_targets="auto", max_length=64)
    return CardWriter(spec, made_of, PLAN, manifest(*sources))


def code_of(card):
    return re.search(r"```python\n(.*?)```", card, re.S)[1]


def test_a_hub_model_is_named_in_the_metadata_and_in_the_code():
    card = cards("org/model").adapter(ADAPTER)
    found = ModelCard(card).data
    assert (found.base_model, found.library_name) == ("org/model", "peft")
    assert found.tags == ["lora", "federated-learning", "fccl"]
    assert "AutoModelForCausalLM.from_pretrained('org/model')" in code_of(card)
    assert "--base" not in card
    assert "4 clients, 3 a round" in card
    assert "Rank 2, alpha 4, seed 5" in card
    assert ADAPTER.sha256 in card


@pytest.mark.parametrize(
    ("layers", "said"),
    [(None, "alpha 4, seed"), (1, "alpha 4, on the top layer alone, seed"), (3, "alpha 4, on the top 3 layers, seed")],
)
def test_the_layers_that_carry_lora_are_said_where_they_are_not_all(layers, said):
    writer = cards("org/model")
    model = writer.model.model_copy(update={"lora_layers": layers})
    assert said in dataclasses.replace(writer, model=model).adapter(ADAPTER)


@pytest.mark.parametrize(
    "made_of",
    [
        ("builtin:micro",),
        ("/home/ann/secret/llama",),
        ("./secret/llama",),
        ("/home/ann/secret/base", "/home/ann/secret/tuned"),
        ("gpt2", "/home/ann/secret/x"),
    ],
)
def test_any_other_comes_with_the_way_to_it_and_without_the_machine_s_paths(made_of):
    for card in (cards(*made_of).adapter(ADAPTER), cards(*made_of).merged(ADAPTER), cards(*made_of).base()):
        assert "secret" not in card
        assert "ann" not in card
        assert "base_model: builtin" not in card
    assert "`fccl export FOLDER --base`" in cards(*made_of).adapter(ADAPTER)


def test_the_code_of_the_built_in_model_runs():
    """All of it but the adapter, which is not there."""
    lines = [line for line in code_of(cards("builtin:micro").adapter(ADAPTER)).splitlines() if "model = " not in line]
    found = {}
    exec("\n".join(lines), found)
    assert (
        type(found["base"]).__name__
        == type(AutoModelForCausalLM.from_pretrained(found["base_path"]("builtin:micro"))).__name__
    )


def test_adapters_that_were_folded_in_are_named_in_their_order():
    card = cards("gpt2", "org/one", "/home/two").adapter(ADAPTER)
    assert "Folded into the base model before: the adapter org/one, then two." in card
    assert (
        code_of(card).index("'gpt2'")
        < code_of(card).index("'org/one'")
        < code_of(card).index("'PATH/TO/two'")
        < code_of(card).index("THIS/FOLDER")
    )


def test_a_merged_folder_is_no_adapter():
    card = cards("gpt2").merged(ADAPTER)
    assert ModelCard(card).data.library_name == "transformers"
    assert "peft" not in code_of(card)


def test_a_data_file_is_named_without_its_folder_and_in_one_line():
    card = cards("gpt2", sources=("/home/ann/private/rows.jsonl", "two\nlines/\x1b[31mrows.json")).adapter(ADAPTER)
    assert "- rows.jsonl (1,234 rows)" in card
    assert "private" not in card
    assert "\x1b" not in card
