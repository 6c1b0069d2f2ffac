from dataclasses import replace

from fccl.compare import trial as trial_module
from fccl.compare.evidence import TUNING_SEEDS
from fccl.compare.grids import GRIDS
from fccl.compare.methods import METHODS
from fccl.compare.scenarios import SCENARIOS
from fccl.compare.trial import run_trial, start_adapter
from fccl.compare.tuning import expanded, tried
from fccl.evaluation.validation import Validator
from fccl.paths import DataPaths


def tuning(shop):
    return replace(shop.planner, design=replace(shop.planner.design, tuning=True))


def test_a_method_is_tried_at_every_value_of_its_grid_and_one_without_a_knob_not_at_all():
    found = expanded([METHODS["fedavg"], METHODS["fedexp"], METHODS["fedlaw"]])
    assert [method.name for method in found] == [
        f"{name}@{value:g}" for name in ("fedexp", "fedlaw") for value in GRIDS[name].values
    ]


def ended(result, loss, learn):
    """The result with other losses after its last round."""
    last = result.rounds[-1].model_copy(update={"loss": loss})
    return result.model_copy(update={"rounds": (*result.rounds[:-1], last), "learn_loss": learn})


def test_the_lowest_validation_loss_is_the_best_of_each_method_and_phase_whatever_the_learn_split_says(workshop):
    shop = workshop(fed_rounds=1)
    planner = tuning(shop)
    trials = [
        planner.trial(SCENARIOS["shuffled"], method, TUNING_SEEDS[0]) for method in expanded([METHODS["fedexp"]])[:2]
    ]
    results = [run_trial(shop.resources, trial) for trial in trials]
    made = [
        (trial, ended(result, loss, learn))
        for trial, result, loss, learn in zip(trials, results, (2.0, 1.5), (0.1, 0.2), strict=True)
    ]
    assert [(one.name, one.loss, one.learn, one.best) for one in tried(made)] == [
        ("fedexp@0.0001", 2.0, 0.1, False),
        ("fedexp@0.001", 1.5, 0.2, True),
    ]
    broken = [(trial, result.model_copy(update={"learn_loss": None})) for trial, result in made[1:]]
    assert [(one.loss, one.best) for one in tried([*made, *broken])] == [(2.0, True), (None, False)]


def test_the_loss_told_is_that_of_the_final_adapter_on_the_whole_learn_split(workshop, tiny_model):
    shop = workshop(fed_rounds=1)
    trial = tuning(shop).trial(SCENARIOS["flipped"], METHODS["fedavg"], TUNING_SEEDS[1])
    start = start_adapter(shop.resources, trial)
    result = run_trial(shop.resources, trial)  # which leaves its final adapter loaded
    learn = Validator.of(
        tiny_model, DataPaths(trial.data), "learn", preference=shop.settings.train_spec("va").preference, batch_size=32
    )
    final = tiny_model.adapter()
    assert final.sha256 == result.adapter_sha256
    assert result.learn_loss == learn("va", final, start).loss


def test_what_nobody_reads_is_not_validated(workshop, monkeypatch):
    asked = []

    class Spy(trial_module.Validator):
        def __call__(self, phase, adapter, reference):
            asked.append(phase)
            return super().__call__(phase, adapter, reference)

    monkeypatch.setattr(trial_module, "Validator", Spy)
    shop = workshop()

    def run(scenario, method):
        return run_trial(shop.resources, shop.planner.trial(SCENARIOS[scenario], METHODS[method], 42))

    alone = run("shuffled", "alone")
    assert (asked, len(alone.by_client)) == ([], 3)
    run("flipped", "base")
    assert asked == ["sft"]  # the start, once its rounds are done
    result = run("flipped", "fedavg")
    assert asked == ["sft", "va", "va"]
    assert len(result.rounds) == 2
