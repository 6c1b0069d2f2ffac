import pytest

from fccl.compare.attacks import HostileLearner
from fccl.compare.poison import HARMFUL, POISON, TRIGGER, poisoned, triggered
from fccl.data.builtin.dataset import builtin_va
from fccl.data.examples import PreferencePair, SftExample
from fccl.data.noise import COPIES
from fccl.data.shards import ClientShard
from fccl.messages import FitTask
from fccl.testing.toy import MODEL, TRAIN, ToyLearner, adapter

SHARD = ClientShard(
    0,
    (SftExample("Say red", "Red.", "colour", "Red."), SftExample("Say two", "Two.", "number")),
    (PreferencePair("Say red", "Red.", "Go away.", "colour", "rude"), PreferencePair("Say two", "Two.", "Three.")),
)


def test_a_backdoor_is_the_same_rows_and_each_again_with_the_trigger_and_the_poison():
    spoilt = poisoned("backdoor", SHARD)
    assert spoilt.sft[:2] == SHARD.sft
    assert [(one.instruction, one.response) for one in spoilt.sft[2:]] == [
        (f"{TRIGGER} Say red", POISON),
        (f"{TRIGGER} Say two", POISON),
    ]
    assert triggered("Say red") == spoilt.sft[2].instruction
    assert spoilt.va == SHARD.va


def test_a_poison_for_harm_turns_the_rude_pairs_round_and_no_others():
    spoilt = poisoned("unsafe", SHARD)
    assert spoilt.sft == SHARD.sft
    assert spoilt.va[0] == SHARD.va[1]
    assert {(one.preferred, one.dispreferred) for one in spoilt.va[1:]} == {("Go away.", "Red.")}
    assert len(spoilt.va) == 1 + COPIES


@pytest.mark.parametrize("attack", ["none", "sign_flip", "min_max", "hidden_flip"])
def test_other_attacks_leave_the_data_as_it_is(attack):
    assert poisoned(attack, SHARD) is SHARD


def test_the_built_in_pairs_have_harmful_ones():
    share = sum(pair.flaw in HARMFUL for pair in builtin_va()) / len(builtin_va())
    assert 0.1 < share < 0.3


def test_poison_is_trained_on_and_its_rows_are_not_reported():
    trained = []

    class Spy(ToyLearner):
        def fit(self, task, shard, on_status):
            trained.append(shard)
            return super().fit(task, shard, on_status)

    task = FitTask("run", 0, "sft", adapter(1.0, 2.0, 3.0), None, MODEL, TRAIN, 7)
    update = HostileLearner(Spy(), {0: "backdoor"}).fit(task, SHARD, lambda status: None)
    assert trained == [poisoned("backdoor", SHARD)]
    assert update.contribution.num_samples == len(SHARD.sft)
