import errno
import hashlib
import json
import os
import stat

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from fccl.adapters.adapter import Adapter, load_adapter
from fccl.adapters.recent import Checked, Recent
from fccl.adapters.stored import AdapterReader, StoredAdapter
from fccl.adapters.torch_files import torch_bytes
from fccl.errors import AdapterError, StorageError
from tests.adapters.test_adapter import mappings


@given(mappings, st.integers(0, 100))
def test_a_file_written_here_is_read_without_its_header(mapping, seed):
    like = Adapter(mapping)
    draw = torch.Generator().manual_seed(seed)
    other = Adapter({name: torch.randn(tensor.shape, generator=draw) for name, tensor in mapping.items()})
    reader, content = AdapterReader.like(like), bytearray(other.to_bytes())
    assert reader.is_as_written_here(content)
    assert len(content) == reader.length
    assert reader.read(content, "it").to_bytes() == other.to_bytes()


LIKE = Adapter({"a": torch.arange(6.0).view(2, 3), "b": torch.arange(4.0)})
READER = AdapterReader.like(LIKE)
NUMBERS = LIKE.to_bytes()[-40:]


def in_another_order():
    """As no program here writes it, and as the format allows."""
    b = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    a = {"dtype": "F32", "shape": [2, 3], "data_offsets": [16, 40]}
    text = json.dumps({"b": b, "a": a}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + NUMBERS[24:] + NUMBERS[:24]


@pytest.mark.parametrize(
    "content", [in_another_order(), safetensors.torch.save(dict(LIKE.tensors), {"format": "pt", "by": "another"})]
)
def test_a_file_written_in_another_way_is_read_too_here_and_by_whoever_comes_later(tmp_path, content):
    assert not READER.is_as_written_here(bytearray(content))
    assert READER.read(bytearray(content), "it").sha256 == LIKE.sha256
    (tmp_path / "sent").write_bytes(content)
    StoredAdapter(tmp_path / "sent", hashlib.sha256(content).hexdigest(), READER).save(tmp_path / "kept.safetensors")
    assert load_adapter(tmp_path / "kept.safetensors").sha256 == LIKE.sha256


def sent(**tensors):
    return bytearray(safetensors.torch.save({name: tensor for name, tensor in tensors.items() if tensor is not None}))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (bytearray(), "is not a safetensors file"),
        (bytearray(torch_bytes(LIKE.tensors)), "is not a safetensors file"),
        (sent(a=torch.zeros(2, 3)), "it: .*missing: b"),
        (sent(a=torch.zeros(2, 3), b=torch.zeros(4), c=torch.zeros(1)), "it: .*unexpected: c"),
        (sent(a=torch.zeros(2, 3), b=torch.zeros(5)), r"b has shape \(5,\), expected \(4,\)"),
        (sent(a=torch.zeros(2, 3), b=torch.zeros(4, dtype=torch.float64)), "float32"),
        (sent(a=torch.zeros(2, 3), b=torch.tensor([0, 0, 0, torch.nan])), "it: b has values that are not finite"),
        (sent(a=torch.full((2, 3), torch.inf), b=torch.zeros(4)), "it: a has values that are not finite"),
        (bytearray(LIKE.to_bytes()[:-1]), "has 39 bytes of numbers"),
        (bytearray(10**6), "at most"),
    ],
)
def test_anything_else_is_refused(content, reason):
    with pytest.raises(AdapterError, match=reason):
        READER.read(content, "it")


def test_a_header_much_longer_than_ours_is_not_looked_at():
    text = b"{" + b" " * 70_000 + b"}" + b" " * 6
    with pytest.raises(AdapterError, match=r"at most 65,\d+ are possible"):
        AdapterReader.like(Adapter({"w": torch.zeros(10**5)})).read(
            bytearray(len(text).to_bytes(8, "little") + text), "it"
        )


@given(st.data())
def test_a_byte_changed_in_the_header_is_no_file_as_written_here(data):
    content = bytearray(LIKE.to_bytes())
    content[data.draw(st.integers(0, len(READER.header) - 1))] ^= data.draw(st.integers(1, 255))
    assert not READER.is_as_written_here(content)


def test_a_nan_in_a_file_as_written_here_is_found():
    content = bytearray(LIKE.to_bytes())
    content[-4:] = torch.tensor([float("inf")]).numpy().tobytes()
    assert READER.is_as_written_here(content)
    with pytest.raises(AdapterError, match="not finite"):
        READER.read(content, "it")


def test_a_stored_adapter_is_the_file_as_it_was_checked(tmp_path):
    path, content = tmp_path / "update.safetensors", LIKE.to_bytes()
    path.write_bytes(content)
    stored = StoredAdapter(path, hashlib.sha256(content).hexdigest(), READER)
    assert stored.load().sha256 == LIKE.sha256
    assert stored.form == LIKE.form
    stored.save(tmp_path / "copy.safetensors")
    assert (tmp_path / "copy.safetensors").read_bytes() == content
    path.write_bytes(content[:-1] + b"x")
    with pytest.raises(AdapterError, match="was changed since its hash was taken"):
        stored.load()
    path.unlink()
    with pytest.raises(StorageError, match="does not exist"):
        stored.save(tmp_path / "copy.safetensors")


def stored_in(path, mode=0o600, recent=None):
    path.write_bytes(LIKE.to_bytes())
    path.chmod(mode)
    return StoredAdapter(path, hashlib.sha256(LIKE.to_bytes()).hexdigest(), READER, recent)


def test_a_shared_file_is_another_name_of_the_same_one(tmp_path):
    stored_in(tmp_path / "one").share(tmp_path / "two", 0o600)
    assert (tmp_path / "one").samefile(tmp_path / "two")


def test_a_file_of_another_mode_is_shared_as_a_copy_with_the_mode_that_was_asked_for(tmp_path):
    stored_in(tmp_path / "one", mode=0o644).share(tmp_path / "two", 0o600)
    assert not (tmp_path / "one").samefile(tmp_path / "two")
    assert (tmp_path / "two").read_bytes() == LIKE.to_bytes()
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("one", "two")] == [0o644, 0o600]


def test_where_the_file_system_has_no_second_names_a_copy_is_made(tmp_path, monkeypatch):
    def refuse(source, target):
        raise PermissionError(errno.EPERM, "not here")

    monkeypatch.setattr(os, "link", refuse)
    stored_in(tmp_path / "one").share(tmp_path / "two", 0o600)
    assert (tmp_path / "two").read_bytes() == LIKE.to_bytes()
    assert stat.S_IMODE((tmp_path / "two").stat().st_mode) == 0o600


def test_a_file_that_was_changed_is_not_shared(tmp_path):
    stored = stored_in(tmp_path / "one")
    (tmp_path / "one").write_bytes(LIKE.to_bytes()[:-1] + b"x")
    with pytest.raises(AdapterError, match="was changed since its hash was taken"):
        stored.share(tmp_path / "two", 0o600)
    assert not (tmp_path / "two").exists()


def test_what_is_held_in_memory_is_used_without_its_file_and_the_file_is_read_again_afterwards(tmp_path):
    recent, path = Recent(), tmp_path / "one"
    stored = stored_in(path, recent=recent)
    recent.hold(stored.file_sha256, Checked(bytearray(LIKE.to_bytes()), LIKE))
    path.unlink()
    assert stored.load() is LIKE
    stored.save(tmp_path / "copy")
    stored.share(tmp_path / "shared", 0o600)
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "shared").read_bytes() == LIKE.to_bytes()
    assert stored.length == len(LIKE.to_bytes())
    recent.clear()
    with pytest.raises(StorageError, match="does not exist"):
        stored.load()
    path.write_bytes(LIKE.to_bytes() + b"x")
    with pytest.raises(AdapterError, match="was changed since its hash was taken"):
        stored.load()
