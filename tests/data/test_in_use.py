"""Prepared data is shared: made once, and not exchanged while somebody reads it."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier

import pytest

from fccl.data.in_use import data_in_use, prepare_anew, replaced_line
from fccl.data.prepare import manifest_matches
from fccl.data.shards import read_manifest
from fccl.errors import DataError, FederationError
from fccl.paths import DataPaths
from fccl.records.manifest import Manifest
from fccl.specs import DataSpec, PartitionSpec


def spec(seed=0, clients=2):
    return DataSpec(
        sft_data="builtin",
        va_data="builtin",
        max_sft_examples=60,
        max_va_examples=30,
        test_examples=20,
        learn_examples=5,
        validation_examples=5,
        partition=PartitionSpec(num_clients=clients, alpha=None, seed=seed),
    )


class Listening:
    """A witness that writes down what it hears."""

    def __init__(self):
        self.heard = []

    def ready(self, spec, paths):
        self.heard.append("ready")

    def replacing(self, paths, others):
        self.heard.append(("replacing", *others))

    @contextmanager
    def preparing(self, spec):
        self.heard.append("preparing")
        yield lambda step: None

    def prepared(self, manifest, paths):
        self.heard.append("prepared")


@pytest.fixture
def paths(tmp_path):
    return DataPaths(tmp_path / "data")


def test_of_two_that_find_no_data_one_prepares_it_and_both_use_it(paths):
    """Beside each other, as the runs of a sweep begin."""
    witness, both = Listening(), Barrier(2)

    def begin():
        both.wait(60)
        with data_in_use(spec(), paths, witness) as manifest:
            both.wait(60)
            return manifest

    with ThreadPoolExecutor(2) as pool:
        found = [future.result() for future in [pool.submit(begin) for _ in range(2)]]
    assert found[0] == found[1] == read_manifest(paths)
    assert witness.heard == ["preparing", "prepared", "ready"]


def test_other_data_is_replaced_when_nobody_uses_it_and_stays_when_somebody_does(paths):
    with data_in_use(spec(seed=0), paths), pytest.raises(FederationError, match="is in use by another command"):
        prepare_anew(spec(seed=1), paths)
    assert read_manifest(paths).spec == spec(seed=0)
    with data_in_use(spec(seed=1), paths) as manifest:
        assert manifest.spec == spec(seed=1)


def test_what_is_replaced_is_said_by_its_settings_and_the_same_data_anew_is_not(paths):
    witness = Listening()
    prepare_anew(spec(clients=2), paths, witness)
    prepare_anew(spec(clients=2), paths, witness)
    prepare_anew(spec(clients=3), paths, witness)
    made = ["preparing", "prepared"]
    assert witness.heard == [*made, *made, ("replacing", "NUM_CLIENTS=2"), *made]
    said = replaced_line(paths, ["NUM_CLIENTS=2"])
    assert said == f"Replacing the data in {paths.root}/, which was prepared with NUM_CLIENTS=2."


def test_data_to_be_kept_is_never_replaced_and_the_error_names_the_other_setting(paths):
    prepare_anew(spec(clients=2), paths, keep=True)
    with pytest.raises(DataError, match="was prepared with NUM_CLIENTS=2"):
        prepare_anew(spec(clients=3), paths, keep=True)
    assert read_manifest(paths).spec == spec(clients=2)


def of_version_0_1(paths):
    """Prepared data whose manifest knows no learn split."""
    prepare_anew(spec(), paths)
    said = json.loads(paths.manifest.read_text())
    del said["spec"]["learn_examples"], said["counts"]["learn"]
    said["files"] = {name: digest for name, digest in said["files"].items() if "learn" not in name}
    paths.manifest.write_text(json.dumps(said))
    for path in paths.server.glob("learn_*"):
        path.unlink()
    return Manifest.model_validate(said)


def test_data_without_a_learn_split_is_refused_where_it_is_to_be_kept_and_else_prepared_anew(paths):
    old, before = of_version_0_1(paths), paths.manifest.read_bytes()
    assert not manifest_matches(paths, old.spec)
    with pytest.raises(DataError, match="is of an earlier version, without a learn split") as caught:
        prepare_anew(old.spec, paths, keep=True)
    assert caught.value.hint == f"remove {paths.manifest}, and the data is prepared anew"
    assert paths.manifest.read_bytes() == before
    with data_in_use(spec(), paths) as manifest:
        assert manifest.counts["learn"] == {"sft": 3, "va": 1}
        assert paths.server_split("learn", "sft").is_file()
