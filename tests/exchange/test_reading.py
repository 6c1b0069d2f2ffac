"""At least 10,000 malformed files at the reader: no crash, no acceptance. The valid ones of the same makers are accepted."""

import hashlib
import io
import json
import pickle
from contextlib import suppress

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fccl.adapter import Adapter
from fccl.errors import AdapterError, UpdateRejected
from fccl.exchange.reading import AnswerReader, GoodAnswer
from fccl.exchange.wire import FailureFile, OriginalContribution, TaskFile, UpdateFile
from fccl.paths import ExchangePaths
from fccl.reading import parse
from fccl.stored import AdapterReader
from tests.toy import MODEL, TRAIN

LIKE = Adapter({"base.lora_A.weight": torch.arange(6.0).view(2, 3), "base.lora_B.weight": torch.arange(4.0)})
GOOD = LIKE.to_bytes()
READER = AdapterReader.like(LIKE)
WORK = {"clients": (1,), "reference_sha256": None, "model": MODEL, "train": TRAIN, "seed": 7}
ASKED = {"run_id": "run", "run_created": 0.0, "round": 0, "phase": "sft", "work": WORK}
TASK = TaskFile.model_validate(ASKED | {"adapter_sha256": hashlib.sha256(GOOD).hexdigest()})
REPORT = {"tokens": 3, "tokens_per_second": 1.0, "steps": 1}


def no_other_rank(rank):
    raise AdapterError(f"no update may have rank {rank}")


def contribution(content=GOOD, **changes):
    said = {
        "version": 1,
        "run_id": "run",
        "round": 0,
        "phase": "sft",
        "client_id": 1,
        "base_sha256": TASK.adapter_sha256,
        "adapter_sha256": hashlib.sha256(content).hexdigest(),
        "avg_loss": 1.5,
        "num_samples": 2,
        "training_time": 0.5,
        "report": REPORT,
    }
    return said | changes


VALID = contribution()
ORIGINAL = {"client": 1, "round": 0, "phase": "sft", "avg_loss": 1.5, "num_samples": 2, "ts": 1.7e9}


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    return AnswerReader(ExchangePaths(tmp_path_factory.mktemp("exchange")), TASK, READER, no_other_rank, None, 0)


def judge(reader, said, update):
    """What the reader makes of two files, given as bytes; None when it refuses."""
    for path, content in ((reader.paths.contribution(1, 0), said), (reader.paths.update(1, 0), update), (reader.paths.flag(1, 0), b"")):
        path.unlink(missing_ok=True)  # some file systems flush a file that is written over
        path.write_bytes(content)
    with suppress(UpdateRejected):
        return reader.read(1)
    return None


def as_json(said):
    return json.dumps(said).encode()


EXAMPLES = {"bytes": 150, "json": 300, "fields": 300, "originals": 200, "adapters": 150, "records": 300, "objects": 300}
FILES = {"bytes": 20, "json": 1, "fields": 2 * (len(VALID) - 1), "originals": 5, "adapters": 20, "records": 1, "objects": 1}


def fuzz(kind):
    return settings(max_examples=EXAMPLES[kind], deadline=None, database=None, suppress_health_check=list(HealthCheck))


def test_control_valid_files_are_accepted(reader):
    found = judge(reader, as_json(VALID), GOOD)
    assert (found.update.sha256, found.contribution.avg_loss, found.report.steps) == (VALID["adapter_sha256"], 1.5, 1)
    assert isinstance(judge(reader, as_json(ORIGINAL), GOOD), GoodAnswer)
    failure = {key: VALID[key] for key in ("version", "run_id", "round", "phase", "client_id", "base_sha256")} | {"error": "no memory"}
    assert judge(reader, as_json(failure), b"") == FailureFile.model_validate(failure)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=10, max_size=10), st.floats(0, 1e6), st.integers(1, 10**9))
def test_control_whatever_the_numbers_are(reader, numbers, loss, samples):
    content = Adapter({"base.lora_A.weight": torch.tensor(numbers[:6]).view(2, 3), "base.lora_B.weight": torch.tensor(numbers[6:])}).to_bytes()
    found = judge(reader, as_json(contribution(content, avg_loss=loss, num_samples=samples)), content)
    assert bytes(found.update.content) == content


# --- contributions

plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10)
json_values = plain | st.lists(plain, max_size=3) | st.dictionaries(st.text(max_size=5), plain, max_size=2)
hostile = st.sampled_from([-1, -0.5, float("nan"), float("inf"), 10**400, "1", True, None, "../../x", "", [], {}, [[[[]]]], "\ud800", "x" * 60_000])


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
@given(json_values | hostile, st.text(min_size=1, max_size=10).filter(lambda name: name not in VALID and name != "signature"))
def test_a_field_of_another_kind_or_one_too_many_is_refused(reader, value, more):
    for name in VALID:
        if name != "version" and not may_be(name, value):
            assert judge(reader, as_json(VALID | {name: value}), GOOD) is None, name
        assert judge(reader, as_json({key: said for key, said in VALID.items() if key != name} | {more: value}), GOOD) is None, name


def test_a_contribution_that_was_cut_or_lacks_a_field_is_refused(reader):
    whole = as_json(VALID)
    for length in range(len(whole)):
        assert judge(reader, whole[:length], GOOD) is None
    for name in set(VALID) - {"version"}:
        assert judge(reader, as_json({key: said for key, said in VALID.items() if key != name}), GOOD) is None


@fuzz("originals")
@given(json_values | hostile)
def test_an_original_contribution_with_a_wrong_field_is_refused(reader, value):
    for name in ("avg_loss", "num_samples", "client", "round", "phase"):
        allowed = may_be(name, value) if name in VALID else value == ORIGINAL[name] and not isinstance(value, bool)
        if not allowed and not (value is None and name in ("client", "round", "phase")):
            assert judge(reader, as_json(ORIGINAL | {name: value}), GOOD) is None, name


# --- adapters; the contribution speaks of exactly these bytes, so the hash is no help


def sent(reader, content):
    return judge(reader, as_json(contribution(content)), content)


@fuzz("adapters")
@given(st.binary(min_size=2000, max_size=2000), st.integers(0, 100))
def test_arbitrary_bytes_are_no_adapter(reader, content, length):
    for start in range(0, 2000, 100):
        piece = content[start : start + length]
        assert sent(reader, b"PK\x03\x04" + piece if start % 200 else piece) is None


def test_an_adapter_that_was_cut_or_has_something_behind_is_refused(reader):
    for length in range(len(GOOD)):
        assert sent(reader, GOOD[:length]) is None


def test_numbers_that_the_list_of_records_calls_a_folder_are_refused(reader):
    """To zipfile that means nothing; torch would give memory that nobody has written."""
    content = bytearray(GOOD)
    entry = 0
    while (entry := content.find(b"PK\x01\x02", entry + 1)) > 0:
        changed = bytearray(content)
        changed[entry + 38] ^= 0x10
        assert sent(reader, bytes(changed)) is None


@fuzz("records")
@given(st.data())
def test_a_byte_changed_outside_the_numbers_never_changes_what_is_read(reader, data):
    """In the names, the shapes, the records' sizes and places: refused, or, where nothing depends on it, read as it was meant."""
    content = bytearray(GOOD)
    content[data.draw(st.sampled_from(READER.fixed.tolist()))] ^= data.draw(st.integers(1, 255))
    found = sent(reader, bytes(content))
    if found is not None:
        assert READER.read(found.update.content, "it").sha256 == LIKE.sha256


tensors = st.one_of(
    st.sampled_from([torch.zeros(2, 3), torch.zeros(4), torch.zeros(3, 2), torch.zeros(0), torch.zeros(2, 3, dtype=torch.float16)]),
    st.sampled_from([torch.full((2, 3), torch.nan), torch.full((2, 3), torch.inf), torch.zeros(4, dtype=torch.int64), torch.tensor(1.0)]),
    st.sampled_from([torch.zeros(1).expand(2000, 10**9), torch.zeros(4).to_sparse(), torch.zeros(2, 3, dtype=torch.complex64)]),
)
objects = st.one_of(json_values, tensors, st.just(print), st.binary(max_size=10), st.just(GoodAnswer))


def is_good(what):
    return set(what) == set(LIKE.tensors) and all(
        isinstance(value, torch.Tensor)
        and (value.layout, value.dtype, value.shape) == (torch.strided, torch.float32, LIKE.tensors[name].shape)
        and bool(torch.isfinite(value).all())
        for name, value in what.items()
    )


@fuzz("objects")
@given(st.dictionaries(st.sampled_from([*LIKE.tensors, "other", "", 7]), objects, max_size=4), st.sampled_from(["torch", "pickle"]))
def test_a_file_of_anything_else_is_no_adapter(reader, what, how):
    buffer = io.BytesIO()
    if how == "pickle":
        pickle.dump({name: str(value) for name, value in what.items()}, buffer)
    else:
        torch.save(what, buffer)
    assert (sent(reader, buffer.getvalue()) is not None) == (how == "torch" and is_good(what))


def test_they_are_more_than_ten_thousand():
    drawn = sum(EXAMPLES[kind] * FILES[kind] for kind in EXAMPLES)
    assert drawn + len(as_json(VALID)) + len(GOOD) >= 10_000


# --- the parts


@pytest.mark.parametrize("spelling", ["training_time", "train_time", "seconds", "duration"])
def test_spellings_of_the_original_fields(spelling):
    said = parse(as_json(ORIGINAL | {spelling: 2}), OriginalContribution, "it")
    assert (said.training_time, said.client) == (2, 1)
    assert parse(as_json({"client_id": 3, "avg_loss": 1, "num_samples": 1}), OriginalContribution, "it").client == 3


def test_what_is_signed_is_all_but_the_signature():
    one = UpdateFile.model_validate(VALID)
    assert one.signed_content() == one.model_copy(update={"signature": "x"}).signed_content()
    changed = VALID | {"run_id": "other", "round": 1, "phase": "va", "client_id": 2, "base_sha256": "0" * 64, "adapter_sha256": "0" * 64}
    changed |= {"avg_loss": 2.5, "num_samples": 3, "training_time": 1.5, "report": one.report.model_copy(update={"steps": 9})}
    for name in set(VALID) - {"version"}:
        assert one.model_copy(update={name: changed[name]}).signed_content() != one.signed_content()
