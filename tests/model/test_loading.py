import threading

from fccl.model import loading, peft_model
from fccl.model.base_model import load_base
from fccl.model.loading import Models
from fccl.specs import ModelSpec

SPEC = ModelSpec(name="one", lora_r=1, lora_alpha=1, max_length=8)
MICRO = ModelSpec(name="builtin:micro", lora_r=1, lora_alpha=1, max_length=8, engine="generic")
OTHER = SPEC.model_copy(update={"name": "other"})


class Engine:
    """Counts the models that it loads, and those that it loads at once."""

    def __init__(self, monkeypatch):
        self.loaded, self.at_work, self.most_at_work = [], 0, 0
        monkeypatch.setattr(loading, "ENGINES", {"generic": self})

    def __call__(self, spec, activations):
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        threading.Event().wait(0.05)  # others come meanwhile
        self.loaded.append(spec)
        self.at_work -= 1
        return object()


def in_threads(calls):
    barrier, found = threading.Barrier(len(calls)), []

    def at_once(call):
        barrier.wait()
        found.append(call())

    threads = [threading.Thread(target=at_once, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_a_model_is_loaded_once_for_all_threads_that_want_it(monkeypatch):
    engine, models = Engine(monkeypatch), Models()
    assert len(set(in_threads([lambda: models.of(SPEC)] * 4))) == 1
    assert engine.loaded == [SPEC]


def test_no_two_models_are_loaded_at_a_time(monkeypatch):
    """transformers keeps the state of a loading in globals."""
    engine = Engine(monkeypatch)
    in_threads([lambda spec=spec: Models().of(spec) for spec in (SPEC, OTHER, SPEC, OTHER)])
    assert (len(engine.loaded), engine.most_at_work) == (4, 1)


def test_a_merged_export_in_bfloat16_loads_its_float32_model_while_no_other_is_loaded(tmp_path, monkeypatch):
    narrow = MICRO.model_copy(update={"base_precision": "bf16"})
    model, at_work, most = Models().of(narrow), 0, 0

    def watched(name, max_length):
        nonlocal at_work, most
        at_work, most = at_work + 1, max(most, at_work + 1)
        threading.Event().wait(0.05)  # others come meanwhile
        base = load_base(name, max_length)
        at_work -= 1
        return base

    monkeypatch.setattr(peft_model, "load_base", watched)
    adapter = model.initial_adapter(1)
    in_threads([lambda: model.write_merged(adapter, tmp_path), lambda: Models().of(MICRO)])
    assert most == 1
    assert (tmp_path / "model.safetensors").is_file()
    assert model.adapter().sha256 == adapter.sha256
