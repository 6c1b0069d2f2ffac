"""Data preparation as a whole: on real texts and on the built-in data, twice the same, and every wrong turn."""

import json
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from fccl.data import prepare as prepare_module
from fccl.data.examples import PreferencePair, SftExample, read_examples
from fccl.data.prepare import manifest_matches, prepare
from fccl.data.shards import load_shard, read_manifest
from fccl.data.sources import builtin_examples
from fccl.data.split import SERVER_SPLITS, SPLITS, group_key
from fccl.errors import BadRow, DataError, SettingsError
from fccl.paths import DataPaths
from fccl.specs import PHASES, DataSpec, PartitionSpec

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
KIND = {"sft": SftExample, "va": PreferencePair}


def spec_of(sft_data, va_data, clients=2, alpha=0.5, column="", seed=7, **more):
    partition = PartitionSpec(num_clients=clients, alpha=alpha, num_topics=4, topic_column=column, seed=seed)
    return DataSpec(
        **{
            "sft_data": str(sft_data),
            "va_data": str(va_data),
            "test_examples": 300,
            "learn_examples": 48,
            "validation_examples": 48,
            "partition": partition,
            **more,
        }
    )


SUBJECTS = ("bread oven flour", "planet orbit rocket", "court judge contract")


@pytest.fixture
def small(tmp_path):
    """Two small files with a label, a repeated row and some instructions in common."""
    sft = [
        {"instruction": f"{SUBJECTS[n % 3]} {n}", "output": f"answer {n}.", "subject": SUBJECTS[n % 3][:5]}
        for n in range(60)
    ]
    va = [
        {
            "prompt": f"{SUBJECTS[n % 3].upper()}  {n}",
            "chosen": f"good {n}",
            "rejected": f"bad {n}",
            "subject": SUBJECTS[n % 3][:5],
        }
        for n in range(30, 70)
    ]
    (tmp_path / "sft.json").write_text(json.dumps([*sft, sft[0]]))
    (tmp_path / "va.jsonl").write_text("".join(json.dumps(row) + "\n" for row in va))
    return tmp_path / "sft.json", tmp_path / "va.jsonl"


@pytest.fixture
def without_picture(monkeypatch):
    """Most tests ask nothing of the picture, which takes longer than all else."""
    monkeypatch.setattr(prepare_module, "draw_picture", lambda manifest: b"")


def tree(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def training(paths, clients, phase):
    return [example for client in range(clients) for example in load_shard(paths, client).of(phase)]


def check(paths, manifest):
    """What must hold of every prepared folder without noise."""
    clients = manifest.spec.partition.num_clients
    held = {
        (split, phase): read_examples(paths.server_split(split, phase), KIND[phase])
        for split in SERVER_SPLITS
        for phase in PHASES
    }
    for phase in PHASES:
        counts = manifest.counts
        assert list(counts) == list(SPLITS)
        assert [len(held[split, phase]) for split in SERVER_SPLITS] == [counts[split][phase] for split in SERVER_SPLITS]
        assert len(training(paths, clients, phase)) == counts["train"][phase]
        rows = [Counter(example.topic for example in load_shard(paths, client).of(phase)) for client in range(clients)]
        assert [[row[topic] for topic in manifest.topics] for row in rows] == [
            list(row) for row in manifest.topics_by_client[phase]
        ]
        assert manifest.samples_by_client()[phase] == {client: sum(row.values()) for client, row in enumerate(rows)}
    keys = {
        split: {group_key(example.instruction) for phase in PHASES for example in held[split, phase]}
        for split in SERVER_SPLITS
    }
    trained = {group_key(example.instruction) for phase in PHASES for example in training(paths, clients, phase)}
    assert not any(keys[one] & keys[other] for one, other in combinations(SERVER_SPLITS, 2))
    assert not trained & set().union(*keys.values())
    assert sum(sum(report.examples for report in manifest.sources if report.phase == phase) for phase in PHASES) == sum(
        counts[phase] for counts in manifest.counts.values() for phase in PHASES
    )


def test_small_files_whole(small, tmp_path):
    paths = DataPaths(tmp_path / "data")
    told = []
    manifest = prepare(spec_of(*small), paths, told.append)
    check(paths, manifest)
    assert read_manifest(paths) == manifest
    assert [report.duplicates for report in manifest.sources] == [1, 0]
    assert [report.rows_read for report in manifest.sources] == [61, 40]
    assert len(told) >= 4
    assert paths.picture.read_bytes().startswith(b"\x89PNG")
    everything = [
        *training(paths, 2, "va"),
        *(pair for split in SERVER_SPLITS for pair in read_examples(paths.server_split(split, "va"), PreferencePair)),
    ]
    assert Counter((pair.preferred, pair.dispreferred) for pair in everything) == Counter(
        (f"good {n}", f"bad {n}") for n in range(30, 70)
    )


def test_twice_the_same_bytes_and_another_seed_others(small, tmp_path):
    for name, seed in (("one", 7), ("two", 7), ("other", 8)):
        prepare(spec_of(small[0], "synthetic", seed=seed, noisy_clients=(1,)), DataPaths(tmp_path / name))
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert tree(tmp_path / "one") != tree(tmp_path / "other")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared real data is not beside the project")
def test_real_texts(tmp_path):
    paths = DataPaths(tmp_path)
    manifest = prepare(
        spec_of(SHARED / "alpaca_en_demo.json", SHARED / "dpo_en_demo.json", clients=4, alpha=0.3, test_examples=100),
        paths,
    )
    check(paths, manifest)
    assert len(manifest.topics) == 4
    assert [report.rows_read for report in manifest.sources] == [999, 300]
    assert manifest.counts["test"] == {"sft": 100, "va": 59}


@pytest.mark.usefixtures("without_picture")
def test_builtin_responses_of_the_server_are_vetted_and_some_demonstrations_are_not(tmp_path):
    paths = DataPaths(tmp_path)
    prepare(spec_of("builtin", "builtin", clients=3), paths)
    for split in SERVER_SPLITS:
        assert all(
            example.response == example.answer
            for example in read_examples(paths.server_split(split, "sft"), SftExample)
        )
    shards = [example for client in range(3) for example in load_shard(paths, client).sft]
    unvetted = sum(example.response != example.answer for example in shards) / len(shards)
    assert 0.25 < unvetted < 0.35


def test_the_builtin_data(tmp_path):
    paths = DataPaths(tmp_path)
    spec = spec_of("builtin", "builtin", clients=3)
    manifest = prepare(spec, paths)
    check(paths, manifest)
    assert set(manifest.topics) == {example.topic for phase in PHASES for example in builtin_examples(phase)}
    assert all(pair.flaw for pair in training(paths, 3, "va"))
    assert all(example.answer for example in training(paths, 3, "sft"))
    assert manifest_matches(paths, spec)


@pytest.mark.usefixtures("without_picture")
def test_synthetic_pairs_say_so_and_stay_within_their_split(small, tmp_path):
    paths = DataPaths(tmp_path / "data")
    manifest = prepare(spec_of(small[0], "synthetic", max_va_examples=30), paths)
    check(paths, manifest)
    report = manifest.sources[1]
    assert (report.name, report.kind, report.examples) == ("synthetic", "synthetic", 30)
    own = {example.response for example in read_examples(paths.server_split("test", "sft"), SftExample)}
    assert {pair.preferred for pair in read_examples(paths.server_split("test", "va"), PreferencePair)} <= own


@pytest.mark.usefixtures("without_picture")
def test_labels_are_the_topics(small, tmp_path):
    manifest = prepare(spec_of(*small, column="subject"), DataPaths(tmp_path / "data"))
    assert set(manifest.topics) == {"bread", "plane", "court"}


@pytest.mark.usefixtures("without_picture")
def test_a_maximum_is_a_seeded_sample(small, tmp_path):
    manifest = prepare(spec_of(*small, max_sft_examples=20, max_va_examples=10), DataPaths(tmp_path / "data"))
    check(DataPaths(tmp_path / "data"), manifest)
    assert [report.examples for report in manifest.sources] == [20, 10]


@pytest.mark.parametrize(("kind", "factor"), [("shuffled", 1), ("flipped", 1), ("duplicated", 4)])
@pytest.mark.usefixtures("without_picture")
def test_noise_is_in_one_clients_files_alone_and_in_the_manifest(small, tmp_path, kind, factor):
    clean, noisy = DataPaths(tmp_path / "clean"), DataPaths(tmp_path / "noisy")
    before = prepare(spec_of(*small), clean)
    after = prepare(spec_of(*small, noisy_clients=(1,), noise_kind=kind), noisy)
    changed = {name for name in before.files if before.files[name] != after.files[name]}
    assert changed == {"clients/client_1_va.jsonl"} | ({"clients/client_1_sft.jsonl"} if kind != "flipped" else set())
    assert after.noisy_clients == (1,)
    assert (
        after.samples_by_client()["va"][1]
        == factor * before.samples_by_client()["va"][1]
        == len(load_shard(noisy, 1).va)
    )
    assert after.counts == before.counts


# Whether a folder can be used again
# ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("without_picture")
def test_a_prepared_folder_matches_its_own_spec_and_sources_only(small, tmp_path):
    spec, paths = spec_of(*small), DataPaths(tmp_path / "data")
    assert not manifest_matches(paths, spec)
    prepare(spec, paths)
    assert manifest_matches(paths, spec)
    assert not manifest_matches(paths, spec_of(*small, alpha=None))
    assert not manifest_matches(paths, spec_of(*small, seed=8))
    paths.picture.unlink()
    assert manifest_matches(paths, spec)
    content = small[0].read_bytes()
    small[0].write_bytes(content + b"\n")
    assert not manifest_matches(paths, spec)
    small[0].unlink()
    assert manifest_matches(paths, spec)
    paths.shard(0, "sft").write_text("")
    assert not manifest_matches(paths, spec)


@pytest.mark.usefixtures("without_picture")
def test_a_folder_whose_preparation_failed_keeps_the_older_data(small, tmp_path):
    spec, paths = spec_of(*small), DataPaths(tmp_path / "data")
    prepare(spec, paths)
    before = tree(paths.root)
    with pytest.raises(DataError, match="too few for 1,000 clients"):
        prepare(spec_of(*small, clients=1000), paths)
    with pytest.raises(DataError):
        prepare(spec_of(tmp_path / "no.json", small[1]), paths)
    assert tree(paths.root) == before
    assert manifest_matches(paths, spec)


def test_a_preparation_cut_before_the_manifest_is_not_complete(small, tmp_path, monkeypatch):
    spec, paths = spec_of(*small), DataPaths(tmp_path / "data")
    prepare(spec, paths)
    monkeypatch.setattr(prepare_module, "commit", lambda paths, manifest: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare(spec_of(*small, seed=8), paths)
    assert not manifest_matches(paths, spec)
    assert not manifest_matches(paths, spec_of(*small, seed=8))


def test_a_picture_that_cannot_be_drawn_leaves_the_older_data_whole(small, tmp_path, monkeypatch):
    spec, paths = spec_of(*small), DataPaths(tmp_path / "data")
    prepare(spec, paths)
    before = tree(paths.root)
    monkeypatch.setattr(
        prepare_module, "draw_picture", lambda manifest: (_ for _ in ()).throw(RuntimeError("no picture"))
    )
    with pytest.raises(RuntimeError, match="no picture"):
        prepare(spec_of(*small, seed=8), paths)
    assert tree(paths.root) == before


# Bad input
# -------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("without_picture")
def test_a_malformed_row_stops_or_is_counted(small, tmp_path):
    small[1].write_text(small[1].read_text() + '{"prompt": "Q", "chosen": 1, "rejected": "B"}\nnonsense\n')
    with pytest.raises(BadRow, match=r"va\.jsonl:41: 'chosen' must be a list of messages, found a number"):
        prepare(spec_of(*small), DataPaths(tmp_path / "data"))
    assert not (tmp_path / "data").exists()
    report = prepare(spec_of(*small, skip_bad_rows=True), DataPaths(tmp_path / "data")).sources[1]
    assert (report.rows_read, report.bad_rows, report.examples) == (42, 2, 40)
    assert [reason.split(": ")[0].rsplit(":")[-1] for reason in report.bad_row_reasons] == ["41", "42"]


def test_a_topic_column_that_no_row_has(small, tmp_path):
    with pytest.raises(DataError, match="no row has a label in the column 'colour'") as caught:
        prepare(spec_of(*small, column="colour"), DataPaths(tmp_path / "data"))
    assert "instruction, output, subject" in caught.value.hint


def test_wrong_settings_are_found_before_any_file_is_read(tmp_path):
    with pytest.raises(SettingsError, match="clients 0 to 1"):
        prepare(spec_of("no.json", "no.json", noisy_clients=(2,)), DataPaths(tmp_path))
    with pytest.raises(DataError, match="only preference pairs"):
        prepare(spec_of("synthetic", "builtin"), DataPaths(tmp_path))


def test_three_instructions_cannot_be_split(tmp_path):
    rows = [{"instruction": letter, "output": letter.upper()} for letter in "abc"]
    (tmp_path / "sft.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="too few for a training, a learn, a validation and a test split"):
        prepare(spec_of(tmp_path / "sft.jsonl", "synthetic"), DataPaths(tmp_path / "data"))
