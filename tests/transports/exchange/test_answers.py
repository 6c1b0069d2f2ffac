"""At least 10,000 malformed files at the reader, when all are drawn: no crash, none accepted.

The valid ones of the same makers are accepted.
"""

import io
import json
import pickle
import tracemalloc
from contextlib import suppress

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fccl.adapters.adapter import Adapter
from fccl.errors import AdapterError, UpdateRejected
from fccl.paths import ExchangePaths
from fccl.storage.reading import parse
from fccl.transports.exchange.answers import AnswerReader
from fccl.transports.exchange.wire import FailureFile, TaskFile, UpdateFile
from tests.examples import few
from tests.transports.exchange.contributions import (
    GOOD,
    LIKE,
    READER,
    TASK,
    VALID,
    as_json,
    contribution,
)


def no_other_rank(rank):
    raise AdapterError(f"no update may have rank {rank}")


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    return AnswerReader(ExchangePaths(tmp_path_factory.mktemp("exchange")), TASK, READER, no_other_rank, None, 0)


def judge(reader, said, update):
    """What the reader makes of two files, given as bytes; None when it refuses."""
    for path, content in (
        (reader.paths.contribution(1, 0), said),
        (reader.paths.update(1, 0), update),
        (reader.paths.flag(1, 0), b""),
    ):
        path.unlink(missing_ok=True)  # some file systems flush a file that is written over
        path.write_bytes(content)
    with suppress(UpdateRejected):
        return reader.read(1)
    return None


EXAMPLES = {"bytes": 150, "json": 300, "fields": 300, "adapters": 200, "headers": 300, "entries": 300, "objects": 300}
FILES = {"bytes": 20, "json": 1, "fields": 2 * len(VALID), "adapters": 20, "headers": 1, "entries": 1, "objects": 2}


def fuzz(kind):
    return settings(
        max_examples=few(EXAMPLES[kind]), deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )


def test_control_valid_files_are_accepted(reader):
    found = judge(reader, as_json(VALID), GOOD)
    assert (found.update.sha256, found.contribution.avg_loss, found.report.steps) == (
        VALID["adapter"]["sha256"],
        1.5,
        1,
    )
    failure = {key: VALID[key] for key in ("version", "run_id", "round", "phase", "client_id", "base_sha256")} | {
        "error": "no memory"
    }
    assert judge(reader, as_json(failure), b"") == FailureFile.model_validate(failure)


@settings(max_examples=few(100), deadline=None)
@given(
    st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=10, max_size=10),
    st.floats(0, 1e6),
    st.integers(1, 10**9),
)
def test_control_whatever_the_numbers_are(reader, numbers, loss, samples):
    content = Adapter(
        {"base.lora_A.weight": torch.tensor(numbers[:6]).view(2, 3), "base.lora_B.weight": torch.tensor(numbers[6:])}
    ).to_bytes()
    found = judge(reader, as_json(contribution(content, avg_loss=loss, num_samples=samples)), content)
    assert bytes(found.update.checked.content) == content


# --- contributions

plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10)
json_values = plain | st.lists(plain, max_size=3) | st.dictionaries(st.text(max_size=5), plain, max_size=2)
hostile = st.sampled_from(
    [
        -1,
        -0.5,
        float("nan"),
        float("inf"),
        10**400,
        "1",
        True,
        None,
        "../../x",
        "",
        [],
        {},
        [[[[]]]],
        "\ud800",
        "x" * 60_000,
    ]
)


def is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def may_be(name, value):
    """Whether a field may have this value, and the answer be this client's to this task."""
    if name in ("avg_loss", "training_time"):
        return is_number(value) and 0 <= value < float("inf") and (isinstance(value, float) or value < 2**1024)
    if name == "num_samples":
        return isinstance(value, int) and not isinstance(value, bool) and value >= 1
    return type(value) is type(VALID[name]) and value == VALID[name]


@fuzz("bytes")
@given(st.binary(min_size=2000, max_size=2000), st.integers(1, 100))
def test_arbitrary_bytes_are_no_contribution(reader, content, length):
    for start in range(0, 2000, 100):
        assert judge(reader, content[start : start + length], GOOD) is None


@fuzz("json")
@given(json_values)
def test_arbitrary_json_is_no_contribution(reader, value):
    assert judge(reader, as_json(value), GOOD) is None


@fuzz("fields")
@given(
    json_values | hostile,
    st.text(min_size=1, max_size=10).filter(lambda name: name not in VALID and name != "signature"),
)
def test_a_field_of_another_kind_or_one_too_many_is_refused(reader, value, more):
    for name in VALID:
        if not may_be(name, value):
            assert judge(reader, as_json(VALID | {name: value}), GOOD) is None, name
        assert (
            judge(reader, as_json({key: said for key, said in VALID.items() if key != name} | {more: value}), GOOD)
            is None
        ), name


def test_a_contribution_that_was_cut_or_lacks_a_field_is_refused(reader):
    whole = as_json(VALID)
    for length in range(len(whole)):
        assert judge(reader, whole[:length], GOOD) is None
    for name in VALID:
        assert judge(reader, as_json({key: said for key, said in VALID.items() if key != name}), GOOD) is None


@pytest.mark.parametrize("version", [True, 2.0, "2", None, [2], 1, 3, 0, -2, 2**70])
def test_another_version_is_refused_whatever_equals_it(reader, version):
    assert judge(reader, as_json(VALID | {"version": version}), GOOD) is None
    with pytest.raises(UpdateRejected, match="version"):
        parse(as_json(VALID | {"version": version}), UpdateFile, "it")
    with pytest.raises(UpdateRejected, match="version"):
        parse(TASK.written().replace(b'"version":2', b'"version":' + as_json(version)), TaskFile, "it")


@pytest.mark.parametrize("name", [*VALID, "signature"])
def test_a_field_given_twice_is_refused_be_it_the_same(reader, name):
    said = as_json(VALID | {"signature": ""})
    field = as_json({name: (VALID | {"signature": ""})[name]})[1:-1]
    for double in (said[:-1] + b"," + field + b"}", b"{" + field + b"," + said[1:]):
        assert judge(reader, double, GOOD) is None
        with pytest.raises(UpdateRejected, match=f"names '{name}' twice"):
            parse(double, UpdateFile, "it")


def test_a_field_given_twice_further_in_is_refused(reader):
    said = as_json(VALID)
    for once, twice in ((b'"steps": 1', b'"steps": 1, "steps": 1'), (b'"length": ', b'"length": 7, "length": ')):
        assert once in said
        assert judge(reader, said.replace(once, twice), GOOD) is None


def test_a_name_spelt_with_an_escape_is_the_same_name(reader):
    assert judge(reader, as_json(VALID)[:-1] + b', "avg\\u005floss": 0.5}', GOOD) is None


# --- adapters; the contribution speaks of exactly these bytes, so the hash is no help


def sent(reader, content):
    return judge(reader, as_json(contribution(content)), content)


@fuzz("adapters")
@given(st.binary(min_size=2000, max_size=2000), st.integers(1, 100))
def test_arbitrary_bytes_are_no_adapter(reader, content, length):
    for start in range(0, 2000, 100):
        piece = content[start : start + length]
        assert sent(reader, len(piece).to_bytes(8, "little") + piece if start % 200 else piece) is None


def test_an_adapter_that_was_cut_or_has_something_behind_is_refused(reader):
    for length in range(1, len(GOOD)):
        assert sent(reader, GOOD[:length]) is None
        assert sent(reader, GOOD + GOOD[:length]) is None


@fuzz("headers")
@given(st.data())
def test_a_byte_changed_in_the_header_never_changes_what_is_read(reader, data):
    """In the names, the shapes, the places: refused, or, where nothing depends on it, read as it was meant."""
    content = bytearray(GOOD)
    content[data.draw(st.integers(0, len(READER.header) - 1))] ^= data.draw(st.integers(1, 255))
    found = sent(reader, bytes(content))
    if found is not None:
        assert READER.read(found.update.checked.content, "it").sha256 == LIKE.sha256


ENTRIES = json.loads(READER.header[8:])


@fuzz("entries")
@given(
    st.sampled_from([*ENTRIES, "other", ""]),
    st.sampled_from(["dtype", "shape", "data_offsets", "more"]),
    json_values | hostile,
)
def test_a_header_that_says_something_else_is_refused(reader, name, field, value):
    entry = ENTRIES.get(name, {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})
    if field not in entry or entry[field] != value or type(value) is not type(entry[field]):
        text = as_json(ENTRIES | {name: entry | {field: value}})
        text += b" " * (-len(text) % 8)
        assert sent(reader, len(text).to_bytes(8, "little") + text + GOOD[len(READER.header) :]) is None


@pytest.mark.parametrize("rank", [0, -1, 1025, 10**30, 10**400, 10**4000, True, 1.0])
def test_a_rank_beyond_the_bounds_is_refused_and_not_repeated(reader, rank):
    reader.paths.contribution(1, 0).write_bytes(as_json(contribution(lora_r=rank)))
    with pytest.raises(UpdateRejected, match="lora_r") as caught:
        reader.read(1)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "shape", [[0, 2**40, 2**40], [2**40, 2**40, 0], [2**33, 2**33, 0, 1], [2**40, 0, 2**24], [0] + [2**40] * 7]
)
def test_an_update_with_an_empty_tensor_too_large_to_describe_is_refused(reader, shape):
    text = as_json({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}})
    text += b" " * (-len(text) % 8)
    assert sent(reader, len(text).to_bytes(8, "little") + text) is None


tensors = st.one_of(
    st.sampled_from(
        [torch.zeros(2, 3), torch.zeros(4), torch.zeros(3, 2), torch.zeros(0), torch.zeros(2, 3, dtype=torch.float16)]
    ),
    st.sampled_from(
        [
            torch.full((2, 3), torch.nan),
            torch.full((2, 3), torch.inf),
            torch.zeros(4, dtype=torch.int64),
            torch.tensor(1.0),
        ]
    ),
)
many = st.dictionaries(st.sampled_from([*LIKE.tensors, "other", ""]), tensors, max_size=4)


def is_good(what):
    return set(what) == set(LIKE.tensors) and all(
        (value.dtype, value.shape) == (torch.float32, LIKE.tensors[name].shape) and bool(torch.isfinite(value).all())
        for name, value in what.items()
    )


@fuzz("objects")
@given(many | st.just(dict(LIKE.tensors)))
def test_tensors_of_another_form_are_refused_and_all_files_of_torch_and_pickle(reader, what):
    assert (
        sent(reader, safetensors.torch.save({name: value.clone() for name, value in what.items()})) is not None
    ) == is_good(what)
    buffer = io.BytesIO()
    torch.save(what, buffer)
    for content in (buffer.getvalue(), pickle.dumps(buffer.getvalue())):
        assert sent(reader, content) is None


class Bomb:
    def __reduce__(self):
        return bytearray, (6 * 2**30,)


def test_a_bomb_takes_no_memory(reader):
    buffer = io.BytesIO()
    torch.save(Bomb(), buffer)
    assert len(buffer.getvalue()) < 2000
    tracemalloc.start()
    try:
        for content in (buffer.getvalue(), pickle.dumps(Bomb())):
            assert sent(reader, content) is None
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [0, 1, len(GOOD) - 1, len(GOOD) + 1, 2**20, 2**40])
def test_a_file_of_another_length_than_was_said_is_not_read(reader, size, monkeypatch):
    judge(reader, as_json(VALID), GOOD)
    with open(reader.paths.update(1, 0), "r+b") as file:
        file.truncate(size)
    with pytest.raises(UpdateRejected, match=f"client_1_round_0.safetensors has {size:,} bytes"):
        reader.read(1)


@pytest.mark.parametrize("length", [0, -1, True, 1.0, "7", 2**31 + 1, 2**40, READER.max_bytes + 1])
def test_a_length_that_no_update_can_have_is_refused_before_its_file_is_opened(reader, length, monkeypatch):
    said = VALID | {"adapter": VALID["adapter"] | {"length": length}}
    judge(reader, as_json(said), GOOD)
    reader.paths.update(1, 0).unlink()
    with pytest.raises(UpdateRejected, match=r"adapter\.length|at most"):
        reader.read(1)


def test_they_are_more_than_ten_thousand():
    drawn = sum(EXAMPLES[kind] * FILES[kind] for kind in EXAMPLES)
    assert drawn + len(as_json(VALID)) + len(GOOD) >= 10_000
