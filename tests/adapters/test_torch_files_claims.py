"""Files of `torch.save` whose descriptions or archives claim something else than their records bear out."""

import io
import pickle
import zipfile
from collections import OrderedDict
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from fccl.adapters.torch_files import MAX_RECORDS, read_torch_file
from fccl.errors import AdapterError
from tests.adapters.torch_zip import by_torch, fuzz, refused, same, saved, zipped

# --- shapes that claim more than there is


def described(storage=6, offset=0, shape=(2, 3), stride=(3, 1), records=(bytes(24),), times=1, key="0", hooks=()):
    """A file with a tensor, or several of the same, whose program says what is asked."""

    class Storage:
        pass

    class Tensor:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (held, offset, shape, stride, False, hooks)

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", torch.FloatStorage, key, "cpu", storage) if isinstance(value, Storage) else None

    held, buffer, hooks = Storage(), io.BytesIO(), OrderedDict() if hooks == () else hooks
    Pickler(buffer, 2).dump({f"a{index}": Tensor() for index in range(times)})
    return zipped(buffer.getvalue(), records)


def test_control_what_is_described_is_read():
    assert read_torch_file(described(), "it")["a0"].tolist() == [[0, 0, 0], [0, 0, 0]]


HUGE = 2**31 - 1


@pytest.mark.parametrize("hooks", [{"a": 1}, OrderedDict({"a": 1}), None, [1]])
def test_a_tensor_with_hooks_is_refused(hooks):
    refused(described(hooks=hooks))


CLAIMS = {
    "a huge shape of stride 0": {"shape": (HUGE, HUGE), "stride": (0, 0)},
    "a shape over the record": {"shape": (3, 3), "stride": (3, 1)},
    "a stride over the record": {"stride": (4, 1)},
    "an offset over the record": {"offset": 1},
    "an offset of 2^31": {"offset": HUGE},
    "a negative offset": {"offset": -1},
    "a negative stride": {"stride": (-3, 1)},
    "a negative size": {"shape": (-2, 3)},
    "overlapping rows": {"shape": (4, 3), "stride": (1, 1)},
    "one number many times": {"shape": (7,), "stride": (0,)},
    "many tensors of one record": {"times": 2},
    "a storage longer than its record": {"storage": HUGE},
    "a storage shorter than its record": {"storage": 5, "shape": (5,), "stride": (1,)},
    "a storage of nothing": {"storage": 0},
    "a negative storage": {"storage": -1},
    "a storage of 2^70": {"storage": 2**70},
    "no record": {"records": ()},
    "another key": {"key": "1"},
    "a key that is a path": {"key": "../data.pkl"},
    "no numbers": {"shape": (0, HUGE), "stride": (1, 1)},
    "dimensions": {"shape": (1,) * 9, "stride": (1,) * 9},
    "60,000 dimensions": {"shape": (1,) * 60_000, "stride": (1,) * 60_000},
    "fewer strides than sizes": {"stride": (1,)},
    "a size that is true": {"shape": (True, 3)},
    "an offset that is true": {"offset": True},
    "an offset that is a text": {"offset": "0"},
}


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS.keys())
def test_a_claim_that_the_records_do_not_bear_out_is_refused(claim):
    refused(described(**claim))


numbers = st.integers(-2, 8) | st.sampled_from([HUGE, -HUGE, 2**16])


@fuzz
@given(st.integers(1, 12), numbers, st.lists(st.tuples(numbers, numbers), max_size=4), st.integers(1, 3))
@example(6, 0, [(2, 3), (3, 1)], 1)
def test_no_file_makes_more_numbers_than_it_has(length, offset, dimensions, times):
    shape, stride = tuple(size for size, _ in dimensions), tuple(step for _, step in dimensions)
    content = described(length, offset, shape, stride, (np.arange(length, dtype="float32").tobytes(),), times)
    with suppress(AdapterError):
        found = read_torch_file(content, "it")
        assert sum(tensor.numel() for tensor in found.values()) <= length
        assert same(found, by_torch(content))


# --- zip files that are none of torch's


def entries(count):
    return b"PK\x03\x04" + b"PK\x01\x02" * count


def rewritten(change):
    """A good file with its records changed: `change` maps names and contents."""
    source, buffer = zipfile.ZipFile(io.BytesIO(saved({"a": torch.arange(6.0)}))), io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for name, content in change([(name, source.read(name)) for name in source.namelist()]):
            target.writestr(name, content)
    return buffer.getvalue()


def damaged():
    content = bytearray(saved({"a": torch.arange(600.0)}))
    content[content.index(np.float32(500).tobytes())] ^= 1
    return content


ARCHIVES = {
    "nothing": (b"", "not a file of torch.save"),
    "the older format": (
        saved({"a": torch.zeros(2)}, _use_new_zipfile_serialization=False),
        "not a file of torch.save",
    ),
    "cut": (saved({"a": torch.zeros(2)})[:-1], "not a readable adapter file"),
    "compressed": (zipped(b"\x80\x02}." + bytes(999), method=zipfile.ZIP_DEFLATED), "is compressed"),
    "too many records": (entries(MAX_RECORDS + 1), "more than 65,536 records"),
    "damaged": (damaged(), "damaged"),
    "a long program": (zipped(b"\x80\x02" + b"}0" * 100_000 + b"}."), "data.pkl of more than"),
    "no program": (rewritten(lambda records: records[1:]), "has no data.pkl"),
    "two programs": (
        rewritten(lambda records: [*records, ("other/data.pkl", b"\x80\x02}.")]),
        "has no data.pkl, or two",
    ),
    "big-endian": (zipped(b"\x80\x02}.", byteorder=b"big"), "another order"),
    "a folder": (rewritten(lambda records: [*records, ("archive/data/7/", b"")]), "has a folder"),
}


@pytest.mark.parametrize(("content", "reason"), ARCHIVES.values(), ids=ARCHIVES.keys())
def test_a_zip_file_that_is_none_of_torchs_is_refused_with_its_reason(content, reason):
    assert reason in refused(content)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_records_of_one_name_are_refused():
    assert "two records of one name" in refused(rewritten(lambda records: [*records, records[-1]]))


@fuzz
@given(st.data())
def test_a_byte_changed_anywhere_is_refused_or_changes_nothing(data):
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.arange(4.0)}
    content = bytearray(saved(tensors))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    with suppress(AdapterError):
        assert same(read_torch_file(content, "it"), tensors)
