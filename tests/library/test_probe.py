"""The parts of a probe, on machines whose rates are known."""

from types import SimpleNamespace

import pytest

from fccl.config import load_settings
from fccl.library.forecasting import evaluation_seconds
from fccl.library.narrow import evaluation_options
from fccl.library.probe import evaluation_probed


class Machine:
    """An evaluation that takes a second, a tenth of one for an example, and half of one for a batch of texts."""

    def __init__(self, monkeypatch, settings, **counts):
        self.now, self.settings, self.manifest = 0.0, settings, SimpleNamespace(counts={"test": counts})
        monkeypatch.setattr("fccl.library.probe.time.monotonic", lambda: self.now)
        monkeypatch.setattr("fccl.library.probe.evaluation_beside", lambda transport: None)

    def evaluate(self, options, evaluate):
        counts = self.manifest.counts["test"]
        examples = min(options.max_sft or 10**9, counts["sft"]) + min(options.max_va or 10**9, counts["va"])
        texts = min(options.gen_samples, options.max_sft or 10**9, counts["sft"])
        self.now += 1.0 + 0.1 * examples + 0.5 * -(-texts // 8)
        return self.now


@pytest.mark.parametrize("batch", [1, 4, 32])
@pytest.mark.parametrize("texts", [0, 1, 6, 16])
@pytest.mark.parametrize("counts", [{"sft": 150, "va": 150}, {"sft": 3, "va": 300}, {"sft": 16, "va": 2}])
def test_an_evaluation_is_planned_as_it_goes_whatever_is_in_a_batch(monkeypatch, batch, texts, counts):
    settings = load_settings({"eval_batch_size": batch, "gen_samples": texts})
    machine = Machine(monkeypatch, settings, **counts)
    found = SimpleNamespace(evaluated=evaluation_probed(machine, None))
    before = machine.now
    actual = machine.evaluate(evaluation_options(settings, settings.seed), None) - before
    assert evaluation_seconds(found, sum(counts.values()), min(texts, counts["sft"])) == pytest.approx(actual)
