"""Updates coded between a learner and its transport: what is sent and what is remembered."""

import dataclasses
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.adapters.adapter import Adapter
from fccl.messages import ResidualsInFolders, ResidualsInMemory, Worker
from fccl.messages.coding import coded
from fccl.paths import LogPaths
from fccl.specs.codecs import CodecSpec
from fccl.testing.toy import TRAIN, ToyLearner, shard
from fccl.testing.transport import task
from tests.examples import few

TOPK = CodecSpec(name="topk", share=0.3)  # one number of three


def asking(codec, number=0, **changes):
    asked = dataclasses.replace(task(number), train=TRAIN.model_copy(update={"codec": codec}))
    return dataclasses.replace(asked, **changes)


def learnt(asked, change):
    """An update that moved the task's adapter by `change`."""
    update = ToyLearner().fit(asked, shard(0), lambda status: None)
    return dataclasses.replace(update, adapter=Adapter({"w": asked.adapter.tensors["w"] + torch.tensor(change)}))


def change_of(asked, update):
    return update.adapter.load().tensors["w"] - asked.adapter.tensors["w"]


def folders(root):
    return ResidualsInFolders(LogPaths(root).residuals_of)


def test_under_fp32_an_update_is_left_alone():
    asked = task()
    update = learnt(asked, (1.0, 2.0, 3.0))
    assert coded(asked, update, ResidualsInMemory()) is update


@pytest.mark.parametrize("name", ["fp16", "int8", "int4"])
def test_an_update_comes_near_its_own_and_nothing_is_remembered(name, tmp_path):
    asked = asking(CodecSpec(name=name))
    sent = coded(asked, learnt(asked, (1.0, -2.0, 3.0)), folders(tmp_path))
    assert (change_of(asked, sent) - torch.tensor([1.0, -2.0, 3.0])).abs().max() <= 3 / 7
    assert sent.sent == len(sent.adapter.content)
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=few(100))
@given(st.lists(st.tuples(*[st.integers(-64, 64)] * 3), min_size=1, max_size=8))
def test_what_topk_leaves_out_is_sent_later(changes):
    """All that was sent and what is still left out add up to all that was learned, to float32."""
    residuals, total = ResidualsInMemory(), torch.zeros(3)
    for number, change in enumerate(changes):
        asked = asking(TOPK, number, adapter=Adapter({"w": torch.zeros(3)}))
        sent = change_of(asked, coded(asked, learnt(asked, tuple(map(float, change))), residuals))
        assert int((sent != 0).sum()) <= 1
        total += sent
    left = residuals.before(asking(TOPK, len(changes)), 0)
    assert torch.allclose(total + left.tensors["w"], torch.tensor(changes, dtype=torch.float32).sum(dim=0), atol=1e-3)


@pytest.mark.parametrize("name", ["int8", "int4", "int3", "topk"])
def test_a_round_that_is_done_again_has_the_same_bytes(name, tmp_path):
    """As by a client that was killed between its residual and its flag: another process, the same folder."""
    codec, contents = CodecSpec(name=name, share=0.3), []
    for number in (0, 1, 1, 2, 2, 2):
        asked = asking(codec, number)
        sent = coded(asked, learnt(asked, (1.0, 0.7 + number, 0.4)), folders(tmp_path))
        contents.append(sent.adapter.content)
    assert contents[1] == contents[2]
    assert contents[3] == contents[4] == contents[5]


def test_clients_and_rounds_round_by_numbers_of_their_own():
    codec = CodecSpec(name="int4")
    contents = set()
    for number, client in ((0, 0), (1, 0), (0, 1)):
        asked = asking(codec, number)
        update = dataclasses.replace(learnt(asked, (1.0, 0.31, 0.17)), client_id=client)
        contents.add(coded(asked, update, ResidualsInMemory()).adapter.content)
    assert len(contents) > 1


@pytest.mark.parametrize("make", [lambda root: ResidualsInMemory(), folders])
def test_a_residual_is_of_one_run_phase_and_client(make, tmp_path):
    residuals, left = make(tmp_path), Adapter({"w": torch.ones(3)})
    residuals.keep(asking(TOPK, 1), 0, left)
    assert residuals.before(asking(TOPK, 2), 0).sha256 == left.sha256
    others = (asking(TOPK, 2, run_id="another"), asking(TOPK, 2, phase="va", reference=left), asking(TOPK, 1))
    assert [residuals.before(other, 0) for other in others] == [None] * 3
    assert residuals.before(asking(TOPK, 2), 1) is None


def test_old_residuals_later_ones_and_those_of_other_runs_go(tmp_path):
    residuals, left = folders(tmp_path), Adapter({"w": torch.ones(3)})
    residuals.keep(asking(TOPK, 0, run_id="another"), 0, left)
    for number in (0, 1, 2, 3, 7, 4):  # round 7 is of a run that went back to an earlier state
        residuals.keep(asking(TOPK, number), 0, left)
    there = LogPaths(tmp_path).residuals_of(0)
    (run,) = {path.name.split("_")[1] for path in there.root.iterdir()}
    assert sorted(there.rounds(run, "sft")) == [3, 4]


def test_a_folder_of_residuals_that_was_deleted_is_a_line_and_none_at_the_start_of_a_phase(tmp_path):
    """Else a client would go on without a word, and end with other bytes."""
    lines = []
    residuals, there = ResidualsInFolders(LogPaths(tmp_path).residuals_of, lines.append), LogPaths(tmp_path)
    asked = [asking(TOPK, number) for number in range(2)] + [
        asking(TOPK, number, phase="va", reference=task().adapter) for number in (2, 3)
    ]
    for one in asked:
        coded(one, learnt(one, (1.0, 2.0, 3.0)), residuals)
    assert lines == []
    shutil.rmtree(there.residuals_of(0).root)
    coded(asked[3], learnt(asked[3], (1.0, 2.0, 3.0)), residuals)
    assert len(lines) == 1
    assert "nothing that earlier updates of client 0 left out (topk)" in lines[0]


def test_an_update_that_does_not_fit_its_task_is_the_client_s_failure():
    class Astray(ToyLearner):
        def fit(self, task, shard, on_status):
            return dataclasses.replace(super().fit(task, shard, on_status), adapter=Adapter({"v": torch.zeros(3)}))

    answer = Worker(Astray(), shard).answer(asking(TOPK), 0, lambda status: None)
    assert "different tensors" in answer.reason
