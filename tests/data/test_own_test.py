"""A client's own test part: disjoint from what anybody trains on, and there when the shard is read again."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.data import prepare as prepare_module
from fccl.data.examples import PreferencePair, SftExample
from fccl.data.own_test import keep_apart
from fccl.data.prepare import prepare
from fccl.data.shards import ClientShard, load_shard
from fccl.data.split import group_key
from fccl.paths import DataPaths
from fccl.specs import PHASES, DataSpec, PartitionSpec
from tests.examples import few

TEXTS = st.text(st.characters(codec="utf-8", categories=("L", "Zs")), min_size=1, max_size=8)
SHARDS = st.builds(
    lambda sft, va: ClientShard(
        0,
        tuple(SftExample(text, str(n)) for n, text in enumerate(sft)),
        tuple(PreferencePair(text, str(n), "b") for n, text in enumerate(va)),
    ),
    st.lists(TEXTS, max_size=30),
    st.lists(TEXTS, max_size=30),
)


def keys(examples):
    return {group_key(example.instruction) for example in examples}


@given(SHARDS, st.floats(0, 0.5))
@settings(deadline=None, max_examples=few(100))
def test_nothing_is_lost_and_somebody_who_had_examples_can_still_train(shard, share):
    parted = keep_apart(shard, share)
    for phase in PHASES:
        assert sorted([*parted.of(phase), *parted.tests_of(phase)], key=str) == sorted(shard.of(phase), key=str)
        assert bool(parted.of(phase)) == bool(shard.of(phase))
        assert not keys(parted.of(phase)) & keys(parted.tests_of(phase))
    if share == 0:
        assert parted == shard


@given(SHARDS, SHARDS, st.floats(0, 0.5))
@settings(deadline=None, max_examples=few(50))
def test_no_client_trains_on_what_another_one_keeps_apart(one, other, share):
    mine, theirs = keep_apart(one, share), keep_apart(other, share)
    for phase in PHASES:
        if theirs.tests_of(phase) or not other.of(phase):
            assert not keys(mine.tests_of(phase)) & keys(theirs.of(phase))


def test_about_the_share_is_kept_apart():
    many = tuple(SftExample(f"question {n}", "answer") for n in range(5000))
    assert len(keep_apart(ClientShard(0, many, ()), 0.1).test_sft) == pytest.approx(500, rel=0.15)


def test_prepared_shards_have_it_in_their_files_and_the_manifest_counts_it(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_module, "draw_picture", lambda manifest: b"")
    partition = PartitionSpec(num_clients=3, alpha=None, seed=7)
    sizes = {"test_examples": 20, "learn_examples": 10, "validation_examples": 10, "max_sft_examples": 300}
    spec = DataSpec(sft_data="builtin", va_data="synthetic", partition=partition, **sizes)
    whole = prepare(spec, DataPaths(tmp_path / "whole"))
    assert whole.kept_apart == {}
    assert "client_test_share" not in DataPaths(tmp_path / "whole").manifest.read_text()
    paths = DataPaths(tmp_path / "parted")
    parted = prepare(spec.model_copy(update={"client_test_share": 0.2}), paths)
    for client in range(3):
        shard = load_shard(paths, client, parted)
        assert shard == keep_apart(load_shard(DataPaths(tmp_path / "whole"), client, whole), 0.2)
        for phase in PHASES:
            assert parted.kept_apart[phase][client] == len(shard.tests_of(phase)) > 0
            assert parted.samples_by_client()[phase][client] == len(shard.of(phase))
