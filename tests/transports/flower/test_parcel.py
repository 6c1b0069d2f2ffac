"""Files as one Flower record: what comes out is what went in, or nothing."""

from __future__ import annotations

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.errors import UpdateRejected
from fccl.transports.flower.contents import Content
from fccl.transports.flower.parcel import Parcel
from tests.examples import few

NAMES = st.text("abcdefghij_.0123456789", min_size=1, max_size=20)
CONTENTS = st.builds(Content, st.integers(0, 2**40), st.text("0123456789abcdef", min_size=64, max_size=64))
HELD = st.dictionaries(NAMES.map("held {}".format), CONTENTS, max_size=5)
PARCELS = st.builds(
    Parcel,
    st.dictionaries(NAMES, st.binary(max_size=300), max_size=5),
    NAMES,
    st.lists(st.text("0123456789abcdef", min_size=64, max_size=64), max_size=3).map(tuple),
    st.floats(0, 1e9),
    st.floats(0, 1e9),
    st.sampled_from(["", "no worker"]),
    HELD,
    st.lists(NAMES, max_size=3).map(tuple),
)
ONE = Parcel({"global_round_0.safetensors": b"numbers", "phase_0.txt": b"sft"}, "done_0_0.flag")


@settings(max_examples=few(50), deadline=None)
@given(PARCELS)
def test_a_parcel_travels(parcel: Parcel) -> None:
    carried = recorddict_from_proto(recorddict_to_proto(parcel.record()))
    found = Parcel.of_record(carried)
    assert found == parcel
    assert (list(found.files), list(found.held)) == (list(parcel.files), list(parcel.held))
    assert found.contents == parcel.contents
    assert found.length == sum(len(array.data) for array in carried.array_records["files"].values())


def test_all_files_are_one_flat_array() -> None:
    (array,) = ONE.record().array_records["files"].values()
    assert (array.dtype, array.shape, array.data) == ("uint8", (10,), b"numberssft")


def changed(**values: object) -> RecordDict:
    record = ONE.record()
    record.config_records["parcel"].update(values)  # type: ignore[arg-type]
    return record


def other_array() -> RecordDict:
    record = ONE.record()
    record.array_records["files"]["more"] = Array("uint8", (1,), "bytes", b"x")
    return record


def other_type() -> RecordDict:
    return RecordDict({"parcel": MetricRecord({"version": 1}), "files": ArrayRecord()})


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (RecordDict(), r"the message is no parcel: its records are \[\]"),
        (RecordDict({"arrays": ArrayRecord(), "metrics": MetricRecord()}), "its records are"),
        (other_type(), "its records have other types"),
        (other_array(), r"the parcel has arrays \['bytes', 'more'\]"),
        (changed(version=1), "a parcel of version 1, not 2: the site's FCCL is older"),
        (changed(version=True), "a parcel of version True, not 2: it is no number"),
        (changed(version="2"), "a parcel of version 2, not 2: it is no number"),
        (changed(held=["a"]), "leaves out files that it does not name"),
        (changed(held=["phase_0.txt"]), "holds 10 bytes, its files have 7"),
        (changed(held=["phase_0.txt"], lengths=[10, -1]), "holds 10 bytes, its files have 10"),
        (changed(missing=[1]), "missing are no list of str"),
        (changed(names=["a"]), "does not name each of its files once"),
        (changed(names=["a", "a"]), "does not name each of its files once"),
        (changed(lengths=[9, 3]), "holds 10 bytes, its files have 12"),
        (changed(lengths=[-1, 11]), "holds 10 bytes"),
        (changed(lengths=[6, 4]), "global_round_0.safetensors is not the file that its parcel speaks of"),
        (changed(names=[1, 2]), "names are no list of str"),
        (changed(answer=3), "answer is no text"),
        (changed(**{"wait-s": float("nan")}), "wait-s are no seconds"),
    ],
)
def test_anything_else_is_refused_with_the_reason(record: RecordDict, reason: str) -> None:
    with pytest.raises(UpdateRejected, match=reason):
        Parcel.of_record(record)


@pytest.mark.parametrize(
    ("version", "sender", "older"),
    [(1, "site", "site"), (3, "site", "server"), (1, "server", "server"), (3, "server", "site")],
)
def test_of_two_versions_the_older_side_is_named(version: int, sender: str, older: str) -> None:
    reason = f"the {sender}'s message is a parcel of version {version}, not 2: the {older}'s FCCL is older; install"
    with pytest.raises(UpdateRejected, match=reason):
        Parcel.of_record(changed(version=version), sender)  # type: ignore[arg-type]


def test_a_config_record_holds_an_empty_parcel_too() -> None:
    """The answer that brings nothing: Flower takes lists without an element."""
    record = Parcel(problem="no worker").record()
    assert isinstance(record["parcel"], ConfigRecord)
    assert Parcel.of_record(record) == Parcel(problem="no worker")
