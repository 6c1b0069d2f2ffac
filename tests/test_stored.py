import io
import pickle
import zipfile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fccl.adapter import Adapter
from fccl.errors import AdapterError, StorageError
from fccl.stored import AdapterReader, StoredAdapter
from tests.test_adapter import mappings


def saved(tensors):
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return bytearray(buffer.getvalue())


@given(mappings, st.integers(0, 100))
def test_a_file_written_here_is_read_as_torch_would_read_it_without_unpickling(mapping, seed):
    like = Adapter(mapping)
    draw = torch.Generator().manual_seed(seed)
    other = Adapter({name: torch.randn(tensor.shape, generator=draw) for name, tensor in mapping.items()})
    reader, content = AdapterReader.like(like), bytearray(other.to_bytes())
    assert reader._is_as_written_here(content)
    assert reader.read(content, "it").to_bytes() == other.to_bytes()


LIKE = Adapter({"a": torch.arange(6.0).view(2, 3), "b": torch.arange(4.0)})
READER = AdapterReader.like(LIKE)


@pytest.mark.parametrize(
    "tensors",
    [
        dict(reversed(LIKE.tensors.items())),  # another order
        {"a": torch.arange(12.0).view(4, 3)[::2], "b": torch.arange(4.0)},  # a view of a larger storage
        {"a": torch.nn.Parameter(torch.arange(6.0).view(2, 3)), "b": torch.arange(4.0)},
    ],
)
def test_a_file_written_in_another_way_is_read_too(tensors):
    content = saved(tensors)
    assert not READER._is_as_written_here(content)
    adapter = READER.read(content, "it")
    assert {name: tensor.tolist() for name, tensor in adapter.tensors.items()} == {name: tensor.tolist() for name, tensor in sorted(tensors.items())}


class Boom:
    def __reduce__(self):
        return (print, ("code ran",))


def with_nan():
    tensors = {name: tensor.clone() for name, tensor in LIKE.tensors.items()}
    tensors["b"][3] = torch.nan
    return saved(tensors)


def compressed():
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(LIKE.to_bytes())) as source, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    return bytearray(buffer.getvalue())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (bytearray(), "is not an adapter file"),
        (bytearray(pickle.dumps({"a": 1})), "is not an adapter file"),
        (saved(Boom()), "not a readable adapter file"),
        (saved({"a": Boom()}), "not a readable adapter file"),
        (saved([torch.zeros(2)]), "does not hold named tensors"),
        (saved({"a": 1, "b": 2}), "does not hold named tensors"),
        (saved({"a": torch.zeros(2, 3)}), "missing: b"),
        (saved({"a": torch.zeros(2, 3), "b": torch.zeros(5)}), r"b has shape \(5,\), expected \(4,\)"),
        (saved({"a": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.float64)}), "float64"),
        (saved({"a": torch.zeros(2, 3), "b": torch.zeros(4).to_sparse()}), "not a dense tensor"),
        (saved({"a": torch.zeros(1).expand(10**6, 10**9), "b": torch.zeros(4)}), r"a has shape \(1000000, 1000000000\)"),
        (with_nan(), "not finite"),
        (compressed(), "is compressed"),
        (bytearray(LIKE.to_bytes()[:-1]), "not a readable adapter file"),
        (bytearray(10**6), "at most"),
    ],
)
def test_anything_else_is_refused_and_runs_no_code(content, reason, capsys):
    with pytest.raises(AdapterError, match=reason):
        READER.read(content, "it")
    assert capsys.readouterr().out == ""


@given(st.data())
def test_a_byte_changed_outside_the_numbers_is_no_file_as_written_here(data):
    content = bytearray(LIKE.to_bytes())
    content[data.draw(st.sampled_from(READER.fixed.tolist()))] ^= data.draw(st.integers(1, 255))
    assert not READER._is_as_written_here(content)


def test_little_is_left_to_chance():
    """The numbers, torch's hash of them, and at most three check sums of four bytes for each of the records."""
    records = len(zipfile.ZipFile(io.BytesIO(LIKE.to_bytes())).infolist())
    assert READER.length - len(READER.fixed) <= 10 * 4 + 40 + 12 * records


def test_a_nan_in_a_file_as_written_here_is_found():
    content = bytearray(LIKE.to_bytes())
    start = READER.starts["b"]
    content[start : start + 4] = torch.tensor([float("inf")]).numpy().tobytes()
    assert READER._is_as_written_here(content)
    with pytest.raises(AdapterError, match="not finite"):
        READER.read(content, "it")


def test_a_stored_adapter_is_the_file_as_it_was_checked(tmp_path):
    import hashlib

    path, content = tmp_path / "update.pt", LIKE.to_bytes()
    path.write_bytes(content)
    stored = StoredAdapter(path, hashlib.sha256(content).hexdigest(), READER)
    assert stored.load().sha256 == LIKE.sha256
    assert stored.form == LIKE.form
    stored.save(tmp_path / "copy.pt")
    assert (tmp_path / "copy.pt").read_bytes() == content
    path.write_bytes(content[:-1] + b"x")
    with pytest.raises(AdapterError, match="was changed after it was checked"):
        stored.load()
    path.unlink()
    with pytest.raises(StorageError, match="does not exist"):
        stored.save(tmp_path / "copy.pt")
