import json
from dataclasses import dataclass, replace
from threading import Timer

import pytest

from fccl.compare.update_cache import CachedLearner
from fccl.messages import FitTask, OwnCorrection
from fccl.storage.locks import one_at_a_time
from fccl.testing.processes import CONTEXT
from fccl.testing.toy import MODEL, START, TRAIN, ToyLearner, adapter, shard


@dataclass
class Setting:
    """A cache in a folder, and the learner behind it, which counts."""

    folder: object
    learner: ToyLearner

    def cache(self, **changes):
        usual = {"start": START.adapter.sha256, "model_sha256": "m", "versions": {"torch": "2"}}
        return CachedLearner(self.learner, self.folder, **(usual | changes))


@pytest.fixture
def setting(tmp_path):
    return Setting(tmp_path / "updates", ToyLearner())


def task(start=START.adapter, **changes):
    usual = {
        "run_id": "run",
        "round": 0,
        "phase": "sft",
        "adapter": start,
        "reference": None,
        "model": MODEL,
        "train": TRAIN,
        "seed": 7,
    }
    return FitTask(**(usual | changes))


def fit(learner, of=None, client=2):
    return learner.fit(of or task(), shard(client), lambda status: None)


def test_what_was_trained_is_not_trained_again_and_is_the_same_to_the_bit(setting):
    plain, first = fit(ToyLearner()), fit(setting.cache())
    again = fit(setting.cache(), task(run_id="another"))
    assert setting.learner.calls == [(0, 2)]
    assert plain.adapter.load().sha256 == first.adapter.load().sha256 == again.adapter.load().sha256
    assert (again.run_id, again.client_id, again.round, again.phase) == ("another", 2, 0, "sft")
    assert again.contribution == first.contribution
    assert again.report == first.report


@pytest.mark.parametrize(
    "changed",
    [
        lambda: task(train=TRAIN.model_copy(update={"learning_rate": 0.2})),
        lambda: task(train=TRAIN.model_copy(update={"threads": 2})),
        lambda: task(model=MODEL.model_copy(update={"lora_alpha": 2})),
        lambda: task(seed=8),
        lambda: task(phase="va", reference=START.adapter, round=0),
    ],
)
def test_anything_that_matters_is_another_update(setting, changed):
    fit(setting.cache())
    fit(setting.cache(), changed())
    assert len(setting.learner.calls) == 2


@pytest.mark.parametrize("changes", [{"model_sha256": "other"}, {"versions": {"torch": "3"}}])
def test_another_model_or_other_libraries_too(setting, changes):
    fit(setting.cache())
    fit(setting.cache(**changes))
    assert len(setting.learner.calls) == 2


def test_other_examples_are_another_update_and_the_client_alone_is_too(setting):
    fit(setting.cache())
    setting.cache().fit(task(), replace(shard(2), sft=shard(2).sft[::-1]), lambda status: None)
    fit(setting.cache(), client=3)
    assert len(setting.learner.calls) == 3


def test_later_rounds_are_not_kept(setting):
    later = task(start=adapter(1.0, 2.0, 3.0), round=1)
    fit(setting.cache(), later)
    fit(setting.cache(), later)
    assert len(setting.learner.calls) == 2
    assert not setting.folder.exists()


def test_what_comes_with_a_control_variate_is_not_kept(setting):
    corrected = task(corrections=OwnCorrection(adapter(0.0, 0.0, 0.0)))
    assert fit(setting.cache(), corrected).control is not None
    fit(setting.cache(), corrected)
    assert len(setting.learner.calls) == 2
    assert not setting.folder.exists()


@pytest.mark.parametrize("damage", ["cut the adapter", "no adapter", "another adapter", "cut the record", "no text"])
def test_what_is_damaged_is_trained_again(setting, damage):
    good = fit(setting.cache()).adapter.load().sha256
    (tensors,), (record,) = setting.folder.glob("*.safetensors"), setting.folder.glob("*.json")
    if damage == "cut the adapter":
        tensors.write_bytes(tensors.read_bytes()[:-4])
    elif damage == "no adapter":
        tensors.unlink()
    elif damage == "another adapter":
        tensors.write_bytes(adapter(9.0, 9.0, 9.0).to_bytes())
    elif damage == "no text":
        record.write_bytes(b"\xff\xfe")
    else:
        record.write_text(json.dumps({"adapter_sha256": good}))
    assert fit(setting.cache()).adapter.load().sha256 == good
    assert len(setting.learner.calls) == 2


def train_slowly(folder, begun, may_end):
    """In a process of its own: says that it trains, and goes on when it may."""

    class Slow(ToyLearner):
        def fit(self, task, shard, on_status):
            begun.set()
            assert may_end.wait(60)
            return super().fit(task, shard, on_status)

    fit(Setting(folder, Slow()).cache())


@pytest.mark.parametrize("killed", [False, True])
def test_who_comes_second_waits_and_reads_unless_the_first_dies(setting, killed):
    begun, may_end = CONTEXT.Event(), CONTEXT.Event()
    first = CONTEXT.Process(target=train_slowly, args=(setting.folder, begun, may_end), daemon=True)
    first.start()
    assert begun.wait(60)
    Timer(0.3, first.kill if killed else may_end.set).start()
    update = fit(setting.cache())
    assert setting.learner.calls == ([(0, 2)] if killed else [])
    assert update.adapter.load().sha256 == fit(ToyLearner()).adapter.load().sha256
    first.join(60)
    assert (first.exitcode == 0) is not killed
    assert sorted(path.suffix for path in setting.folder.iterdir()) == [".json", ".safetensors"]


def test_other_updates_are_not_waited_for(setting):
    with one_at_a_time(setting.folder / f"{setting.cache().key(task(), shard(3))}.safetensors"):
        fit(setting.cache())
    assert setting.learner.calls == [(0, 2)]
