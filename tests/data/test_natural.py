"""Natural federations: a row goes to its own client, and small clients are dealt with on purpose."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.data import prepare as prepare_module
from fccl.data.examples import PreferencePair, SftExample
from fccl.data.in_use import other_settings
from fccl.data.natural import deal_by_name, grouped
from fccl.data.prepare import manifest_matches, prepare
from fccl.data.shards import load_shard, read_manifest
from fccl.errors import BadRow, DataError, SettingsError
from fccl.paths import DataPaths
from fccl.specs import PHASES, ClientColumn, DataSpec, PartitionSpec
from tests.examples import few

NAMES = st.text(st.characters(codec="utf-8", categories=("L", "N")), min_size=1, max_size=6)
SIZES = st.dictionaries(NAMES, st.integers(1, 40), min_size=1, max_size=20)
RULES = st.builds(
    ClientColumn, column=st.just("user"), min_examples=st.integers(1, 50), small=st.sampled_from(["merge", "drop"])
)


@given(SIZES, RULES, st.integers(0, 2**40))
@settings(deadline=None, max_examples=few(200))
def test_every_client_is_large_enough_and_a_name_is_one_client(sizes, rule, seed):
    groups = grouped(sizes, rule, seed)
    placed = [name for group in groups for name in group]
    assert len(placed) == len(set(placed))
    assert all(sum(sizes[name] for name in group) >= rule.min_examples for group in groups)
    large = {name for name in sizes if sizes[name] >= rule.min_examples}
    assert len([group for group in groups if large & set(group)]) == len(large), "two large clients are never one"
    if rule.small == "drop":
        assert set(placed) == large
    elif sum(sizes.values()) >= rule.min_examples:
        assert set(placed) == set(sizes), "merging loses nobody"


@given(SIZES, RULES, st.integers(0, 2**40), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=few(100))
def test_clients_do_not_depend_on_the_order_in_which_names_come(sizes, rule, seed, random):
    names = list(sizes)
    random.shuffle(names)
    assert grouped({name: sizes[name] for name in names}, rule, seed) == grouped(sizes, rule, seed)


@given(
    st.lists(st.sampled_from("abcde"), min_size=1, max_size=30),
    st.lists(st.sampled_from("abcde"), min_size=1, max_size=30),
)
@settings(deadline=None, max_examples=few(100))
def test_a_row_goes_to_the_client_that_it_names_in_both_phases(sft_of, va_of):
    sft = [SftExample(f"q{n}", f"{name}", client=name) for n, name in enumerate(sft_of)]
    va = [PreferencePair(f"p{n}", f"{name}", "bad", client=name) for n, name in enumerate(va_of)]
    found = deal_by_name(sft, va, PartitionSpec(num_clients=0, alpha=None, clients=ClientColumn(column="user"), seed=3))
    assert [shard.client_id for shard in found.shards] == list(range(len({*sft_of, *va_of})))
    for shard, names in zip(found.shards, found.origins.names, strict=True):
        assert [example.response for example in shard.sft] == [name for name in sft_of if (name,) == names]
        assert [pair.preferred for pair in shard.va] == [name for name in va_of if (name,) == names]
        assert not any(example.client for phase in PHASES for example in shard.of(phase))


def rows(counts, pairs=False, name=str):
    made = (
        {"instruction": f"question {sum(map(ord, str(user)))} number {n}", "user": name(user)}
        | ({"preferred": f"good {n}", "dispreferred": f"bad {n}"} if pairs else {"response": f"answer {n} of {user}"})
        for user, count in counts.items()
        for n in range(count)
    )
    return "".join(json.dumps(row) + "\n" for row in made)


@pytest.fixture(autouse=True)
def without_picture(monkeypatch):
    """The picture takes longer than all else, and has its own tests."""
    monkeypatch.setattr(prepare_module, "draw_picture", lambda manifest: b"")


def spec_of(folder, clients=0, va="va.jsonl", **rule):
    column = ClientColumn(**{"column": "user", **rule})
    partition = PartitionSpec(num_clients=clients, alpha=0.5, num_topics=2, clients=column, seed=7)
    va = va if va == "synthetic" else str(folder / va)
    few_held = {"test_examples": 6, "learn_examples": 2, "validation_examples": 2}
    return DataSpec(sft_data=str(folder / "sft.jsonl"), va_data=va, partition=partition, **few_held)


@pytest.fixture
def sources(tmp_path):
    (tmp_path / "sft.jsonl").write_text(rows({"ann": 30, "bob": 20, "cid": 3, "dan": 2}))
    (tmp_path / "va.jsonl").write_text(rows({"ann": 25, "eve": 20}, pairs=True))
    return tmp_path


def held(paths, manifest):
    return [load_shard(paths, client, manifest) for client in range(manifest.spec.partition.num_clients)]


def test_clients_follow_from_the_data_and_one_with_instructions_alone_has_no_pairs(sources):
    paths = DataPaths(sources / "data")
    manifest = prepare(spec_of(sources), paths)
    assert manifest == read_manifest(paths)
    names = {group[0]: client for client, group in enumerate(manifest.origins.names)}
    assert set(names) == {"ann", "bob", "cid", "dan", "eve"}
    shards = held(paths, manifest)
    assert all(example.response.endswith("of bob") for example in shards[names["bob"]].sft)
    assert shards[names["bob"]].va == ()
    assert shards[names["eve"]].sft == ()
    assert manifest.samples_by_client() == {
        phase: {shard.client_id: len(shard.of(phase)) for shard in shards} for phase in PHASES
    }
    assert manifest.counts["train"] == {phase: sum(len(shard.of(phase)) for shard in shards) for phase in PHASES}
    assert '"client"' not in "".join(path.read_text() for path in paths.clients.iterdir())


def test_twice_the_same_bytes_and_what_is_there_is_used_as_it_is(sources):
    found = []
    for name in ("one", "two"):
        paths = DataPaths(sources / name)
        prepare(spec_of(sources), paths)
        found.append({path.relative_to(paths.root): path.read_bytes() for path in sorted(paths.root.rglob("*.json*"))})
    assert found[0] == found[1]
    assert manifest_matches(paths, spec_of(sources))
    assert manifest_matches(paths, spec_of(sources, clients=5))
    assert not manifest_matches(paths, spec_of(sources, min_examples=4))
    assert other_settings(read_manifest(paths), spec_of(sources, min_examples=4)) == ["MIN_CLIENT_EXAMPLES=1"]


@pytest.mark.parametrize(("small", "clients", "left_out"), [("merge", 4, 0), ("drop", 3, 2)])
def test_small_clients_are_merged_or_left_out_and_counted(sources, small, clients, left_out):
    manifest = prepare(spec_of(sources, min_examples=4, small=small), DataPaths(sources / "data"))
    assert manifest.spec.partition.num_clients == clients
    assert (manifest.origins.left_out, len(manifest.origins.members)) == (left_out, clients)
    trained = sum(manifest.counts["train"].values()) + manifest.origins.left_out_examples
    assert trained == sum(report.examples for report in manifest.sources) - sum(
        count for split in ("learn", "validation", "test") for count in manifest.counts[split].values()
    )


def test_names_are_not_said_when_they_are_not_to_be(sources):
    paths = DataPaths(sources / "data")
    manifest = prepare(spec_of(sources, anonymize=True), paths)
    assert manifest.origins.names == ()
    assert manifest.origins.members == (1, 1, 1, 1, 1)
    assert not any(name in paths.manifest.read_text() for name in ("ann", "bob", "cid", "dan", "eve"))
    other = DataPaths(sources / "other")
    prepare(spec_of(sources), other)
    assert [path.read_bytes() for path in sorted(paths.clients.iterdir())] == [
        path.read_bytes() for path in sorted(other.clients.iterdir())
    ]


def test_synthetic_pairs_belong_to_the_client_of_their_instruction(sources):
    paths = DataPaths(sources / "data")
    for shard in held(paths, prepare(spec_of(sources, va="synthetic"), paths)):
        assert Counter(pair.instruction for pair in shard.va) == Counter(example.instruction for example in shard.sft)


def test_the_same_row_of_two_clients_is_no_duplicate(tmp_path):
    row = {"instruction": "Greet.", "response": "Hello."}
    greetings = [row | {"user": name} for name in ("ann", "bob", "ann")]
    (tmp_path / "sft.jsonl").write_text(
        rows({"ann": 30, "bob": 20}) + "".join(json.dumps(one) + "\n" for one in greetings)
    )
    manifest = prepare(spec_of(tmp_path, va="synthetic"), DataPaths(tmp_path / "data"))
    assert manifest.sources[0].duplicates == 1


def test_another_number_of_clients_than_the_data_has_is_one_line(sources):
    with pytest.raises(SettingsError, match="CLIENT_COLUMN=user finds 5 clients, NUM_CLIENTS is 3"):
        prepare(spec_of(sources, clients=3), DataPaths(sources / "data"))


def test_nobody_large_enough_is_one_line(sources):
    with pytest.raises(DataError, match="no client has MIN_CLIENT_EXAMPLES=400 training examples"):
        prepare(spec_of(sources, min_examples=400), DataPaths(sources / "data"))


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({}, "has no 'user'"),
        ({"user": ""}, "'user' is empty"),
        ({"user": None}, "'user' is empty"),
        ({"user": 7}, "'user' is a whole number, and in earlier rows text"),
        ({"user": 1.5}, "'user' must be text or a whole number, found a number"),
        ({"user": True}, "'user' must be text or a whole number, found true or false"),
        ({"user": ["ann"]}, "'user' must be text or a whole number, found a list"),
    ],
)
def test_a_row_that_names_no_client_is_one_line(sources, row, problem):
    bad = json.dumps({"instruction": "Who?", "response": "Nobody."} | row)
    (sources / "sft.jsonl").write_text(rows({"ann": 3}) + bad + "\n")
    with pytest.raises(BadRow, match=problem) as caught:
        prepare(spec_of(sources), DataPaths(sources / "data"))
    assert "sft.jsonl:4: " in str(caught.value)


def test_rows_that_name_no_client_can_be_left_out_and_are_counted(sources):
    more = json.dumps({"instruction": "Who?", "response": "Nobody."})
    (sources / "sft.jsonl").write_text(rows({"ann": 30, "bob": 20}) + more + "\n")
    spec = spec_of(sources).model_copy(update={"skip_bad_rows": True})
    assert prepare(spec, DataPaths(sources / "data")).sources[0].bad_rows == 1


def test_numbers_name_clients_too(tmp_path):
    (tmp_path / "sft.jsonl").write_text(rows({1: 30, 2: 20}, name=int))
    manifest = prepare(spec_of(tmp_path, va="synthetic"), DataPaths(tmp_path / "data"))
    assert sorted(manifest.origins.names) == [("1",), ("2",)]


def test_the_built_in_data_names_nobody(sources):
    with pytest.raises(DataError, match="the built-in data has no columns"):
        prepare(spec_of(sources).model_copy(update={"va_data": "builtin"}), DataPaths(sources / "data"))
