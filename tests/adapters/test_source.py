"""Every kind of adapter source says the same of one adapter, whether it is in memory, in a file or in two parts."""

import hashlib

import pytest
import torch

from fccl.adapters.adapter import Adapter, load_adapter
from fccl.adapters.ranks import WithFrozen, leading
from fccl.adapters.stored import AdapterReader, StoredAdapter

WHOLE = Adapter(
    {
        "m.lora_A.weight": torch.arange(12.0).reshape(4, 3),
        "m.lora_B.weight": torch.arange(8.0).reshape(2, 4),
    }
)


def stored(folder):
    content = WHOLE.to_bytes()
    (folder / "sent").write_bytes(content)
    return StoredAdapter(folder / "sent", hashlib.sha256(content).hexdigest(), AdapterReader.like(WHOLE))


SOURCES = {
    "in memory": lambda folder: WHOLE,
    "in its file": stored,
    "with frozen directions": lambda folder: WithFrozen(leading(WHOLE, 1), WHOLE),
}


@pytest.fixture(params=SOURCES)
def source(request, tmp_path):
    return SOURCES[request.param](tmp_path)


def test_form_and_hash_are_those_of_the_adapter_that_it_loads(source):
    assert source.load().to_bytes() == WHOLE.to_bytes()
    assert source.form == WHOLE.form
    assert source.sha256 == WHOLE.sha256


def test_what_it_saves_is_read_again(source, tmp_path):
    source.save(tmp_path / "kept.safetensors")
    assert load_adapter(tmp_path / "kept.safetensors").sha256 == WHOLE.sha256
