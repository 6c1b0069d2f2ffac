"""Reference log-probabilities are computed once, by all of a client's processes; the bits are those of computing."""

import shutil

import pytest
import torch

from fccl.adapters.adapter import Adapter
from fccl.data.examples import PreferencePair, SftExample
from fccl.data.shards import ClientShard
from fccl.messages import FitTask
from fccl.model.encoding import encode_pairs
from fccl.model.language_model import cpu_threads
from fccl.model.loading import Models
from fccl.specs import TrainSpec
from fccl.storage.cache import Cache
from fccl.training import references as module
from fccl.training.learner import GenericLearner
from fccl.training.objective import reference_log_probs
from fccl.training.references import References

MOST = 1_000_000
VA = tuple(PreferencePair(f"What is {n}?", f"It is {n}.", "Go away.") for n in range(5))
SHARD = ClientShard(0, (SftExample("a", "b"),), VA)
TRAIN = TrainSpec(epochs=1, learning_rate=5e-3, batch_size=2, warmup=0, max_grad_norm=1.0, threads=1)


def random_adapter(model, seed):
    draw = torch.Generator().manual_seed(seed)
    return Adapter({name: 0.2 * torch.randn(p.shape, generator=draw) for name, p in model.factors.items()})


@pytest.fixture
def pairs(tiny_model):
    return encode_pairs(tiny_model.tokenizer, VA, tiny_model.spec.max_length)


@pytest.fixture
def reference(tiny_model):
    return random_adapter(tiny_model, 1)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def computed(monkeypatch):
    """A list that grows whenever the numbers are computed."""
    calls = []
    monkeypatch.setattr(module, "reference_log_probs", lambda *args: calls.append(1) or reference_log_probs(*args))
    return calls


@pytest.fixture
def later(folder):
    """The references of a process that has just been started."""
    return lambda: References(Cache(folder, MOST))


def test_in_one_process_they_are_computed_once(tiny_model, reference, pairs, computed):
    references = References()
    first, second = (references.log_probs(tiny_model, reference, pairs, 2) for _ in range(2))
    assert len(computed) == 1
    assert torch.equal(first, second)


def test_a_later_process_has_the_same_bits_without_computing(tiny_model, reference, pairs, later, computed):
    first = later().log_probs(tiny_model, reference, pairs, 2)
    second = later().log_probs(tiny_model, reference, pairs, 2)
    assert len(computed) == 1
    assert torch.equal(first, second)
    assert torch.equal(first, reference_log_probs(tiny_model, reference, pairs, 2))


def test_anything_they_follow_from_makes_them_others(tiny_model, reference, pairs, later, computed, monkeypatch):
    def count(reference=reference, pairs=pairs, batch_size=2):
        later().log_probs(tiny_model, reference, pairs, batch_size)
        return len(computed)

    assert count() == 1
    assert count(reference=random_adapter(tiny_model, 2)) == 2
    assert count(pairs=pairs[:-1]) == 3
    assert count(pairs=pairs[::-1]) == 4
    assert count(batch_size=3) == 5
    with cpu_threads(torch.get_num_threads() + 1):
        assert count() == 6
    with monkeypatch.context() as patch:
        patch.setattr(module, "arithmetic", lambda model: {"torch": "another"})
        assert count() == 7
    weight = tiny_model.base.get_input_embeddings().weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight[0, 0] += 1
        assert count() == 8, "another base model of the same name"
        weight.copy_(before)
    assert count() == count(pairs=pairs[:-1]) == count(pairs=pairs[::-1]) == 8, "and all of them are still there"


def test_what_was_loaded_before_is_no_part_of_the_key(tiny_model, reference, pairs, later, computed):
    """An adapter of a higher rank than the model's leaves directions in the frozen weights."""
    name = next(iter(tiny_model.factors))
    wide = Adapter(
        {
            name: torch.cat([tensor, tensor], dim=0 if ".lora_A." in name else 1)
            for name, tensor in reference.tensors.items()
        }
    )
    assert wide.tensors[name].shape != reference.tensors[name].shape
    for loaded in (reference, wide, random_adapter(tiny_model, 3)):
        tiny_model.load(loaded)
        later().log_probs(tiny_model, reference, pairs, 2)
        tiny_model.load(loaded)
        later().log_probs(tiny_model, wide, pairs, 2)
    assert len(computed) == 2


@pytest.mark.parametrize("spoil", [lambda content: content[:-1], lambda content: b"", lambda content: content[::-1]])
def test_a_spoilt_file_is_computed_anew_and_written_anew(tiny_model, reference, pairs, later, computed, folder, spoil):
    first = later().log_probs(tiny_model, reference, pairs, 2)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(spoil(whole))
    assert torch.equal(later().log_probs(tiny_model, reference, pairs, 2), first)
    assert len(computed) == 2
    assert path.read_bytes() == whole


# --- the folder may go at any time


def rounds(model, references, delete=lambda moment: None):
    """The adapters after three VA rounds; the process is started anew for each round."""
    reference = adapter = random_adapter(model, 1)
    found = []
    for number in range(3):
        delete("between")
        task = FitTask("run", number, "va", adapter, reference, model.spec, TRAIN, 5)
        learner = GenericLearner(Models.holding(model), references=references())
        delete("started")
        update = learner.fit(task, SHARD, lambda status: delete("during"))
        adapter = update.adapter
        found.append(adapter.sha256)
    return found


@pytest.mark.parametrize("when", ["between", "started", "during", "never"])
def test_deleting_the_folder_loses_time_and_changes_no_bit(tiny_model, later, computed, folder, when):
    def delete(moment):
        if moment == when:
            shutil.rmtree(folder, ignore_errors=True)

    expected = rounds(tiny_model, References)
    computed.clear()
    assert rounds(tiny_model, later, delete) == expected
    assert len(computed) == (1 if when == "never" else 3)


@pytest.mark.parametrize("bound", [0, 60])
def test_without_room_for_them_they_are_computed_each_time(tiny_model, computed, folder, bound):
    assert rounds(tiny_model, lambda: References(Cache(folder, bound))) == rounds(tiny_model, References)
    assert len(computed) == 3 + 3
