"""`LORA_AGGREGATION=fed_sb` as people start it: factors once, middle matrices each round, a plain LoRA at the end."""

import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

import fccl
from fccl.adapters.adapter import load_adapter
from fccl.adapters.middle import fixed_sha256, folded, middle_form, moving, without_effect
from fccl.adapters.stored import AdapterReader
from fccl.apps.main import main
from fccl.config import load_settings
from fccl.errors import SettingsError
from fccl.federation.run_evaluation import run_adapters, starting_points
from fccl.library.narrow import arranged, require_fed_sb
from fccl.library.past_run import changed, past_run
from fccl.model.base_model import load_base
from fccl.model.loading import load_model
from fccl.paths import LogPaths

RANK = 16
SMALL = {
    "max_sft_examples": 60,
    "max_va_examples": 30,
    "sft_rounds": 2,
    "va_rounds": 1,
    "threads": 1,
    "lora_aggregation": "fed_sb",
    "lora_r": RANK,
    "lora_alpha": 2 * RANK,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with prepared data and a finished run, and the lines that it told."""
    folder, told = tmp_path_factory.mktemp("fed-sb"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        results = list(fccl.FederatedRun(**SMALL, tell=told.append))
    return folder, results, told


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    for name in ("data", "logs"):
        shutil.copytree(made[0] / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


LOGS = LogPaths(Path("logs"))


def test_the_factors_are_sent_once_and_the_middle_matrices_each_round(made):
    folder, results, told = made
    start = load_adapter(LogPaths(folder / "logs").start)
    update = AdapterReader(middle_form(start.form)).length
    assert {fixed_sha256(each.state.adapter) for each in results} == {fixed_sha256(start)}
    assert without_effect(start).sha256 == start.sha256
    assert [each.record.sent.up for each in results] == [3 * update] * 3
    assert [each.record.sent.down for each in results] == [len(start.to_bytes()), update + 40, update + 40]
    assert any(line.startswith("Adapters took ") for line in told)
    assert any("factors of the learn split's first gradient" in line for line in told)


def test_va_goes_on_from_sft_s_result_and_has_it_as_its_reference(made):
    _, results, _ = made
    task = results[-1].inputs.task
    assert task.phase == "va"
    assert task.adapter.sha256 == task.reference.sha256 == results[-2].state.adapter.sha256
    assert results[-1].state.adapter.sha256 != task.adapter.sha256


def test_training_lowers_the_loss_under_the_servers_own_weights(made):
    _, results, _ = made
    assert results[1].record.validation.loss < results[0].record.validation.loss
    assert results[0].record.verification is not None
    assert len({*results[0].record.weights}) > 1


def test_peft_has_the_same_logits(folder):
    """`LOG_DIR/adapter` is a plain LoRA of B R and A, on the base model that transformers loads."""
    final, settings = load_adapter(LOGS.global_final), load_settings({})
    model = load_model(fccl.FederatedRun(resume=True).settings.model_spec())
    model.load(final)
    base = load_base(settings.model_name, 128).model
    theirs = PeftModel.from_pretrained(base, LOGS.adapter).eval()
    ids = torch.arange(1, 41).view(2, 20)
    with torch.no_grad():
        mine = model.plain.base(input_ids=ids).logits
        torch.testing.assert_close(theirs(input_ids=ids).logits, mine, rtol=1e-4, atol=1e-4)
    assert load_adapter(LOGS.adapter / "adapter_model.safetensors").sha256 == folded(final).sha256


@pytest.mark.slow
def test_a_whole_model_has_it_folded_in(folder, tmp_path):
    merged = fccl.FederatedRun(resume=True).export(tmp_path / "merged", merge=True)
    model = load_model(fccl.FederatedRun(resume=True).settings.model_spec())
    model.load(load_adapter(LOGS.global_final))
    ids = torch.arange(1, 41).view(2, 20)
    with torch.no_grad():
        found = AutoModelForCausalLM.from_pretrained(merged).eval()(input_ids=ids).logits
        torch.testing.assert_close(found, model.plain.base(input_ids=ids).logits, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_a_run_that_goes_on_after_every_round_has_the_same_bytes(made, folder):
    again = fccl.FederatedRun(**SMALL, log_dir="logs-again")
    next(iter(again))
    for _ in range(2):
        next(iter(fccl.FederatedRun(resume=True, log_dir="logs-again")))
    assert fccl.FederatedRun(resume=True, log_dir="logs-again").train().sha256 == made[1][-1].state.adapter.sha256


def test_it_is_checked_and_made_again_without_training(folder, capsys):
    assert main(["verify"]) == 0
    assert "nothing was found wrong" in capsys.readouterr().out
    assert main(["replay"]) == 0
    assert main(["replay", "--without-client", "1"]) == 0
    with pytest.raises(SettingsError, match="LORA_AGGREGATION=factors: its clients train in another way"):
        changed(past_run(Path("logs"), "", "replay", {}), {"lora_aggregation": "factors"})


def test_a_start_without_effect_is_the_base_model(folder):
    assert starting_points(LOGS) == {"base": None}
    assert list(run_adapters(LOGS)) == ["base", "SFT", "FedVA"]


@pytest.mark.slow
def test_the_evaluation_has_no_column_for_a_start_without_effect(folder):
    report = fccl.FederatedRun(resume=True).evaluate(sft=4, va=4, gen_samples=0, bootstrap_samples=100)
    assert [model.name for model in report.models] == ["base", "SFT", "FedVA"]


def test_another_run_starts_from_its_result_with_the_same_factors(folder):
    final = load_adapter(LOGS.global_final)
    own = SMALL | {"start_from": "logs/global_final.safetensors", "log_dir": "logs-next", "update_codec": "int3"}
    first = next(iter(fccl.FederatedRun(**own)))
    assert first.inputs.task.adapter.sha256 == final.sha256
    assert fixed_sha256(first.state.adapter) == fixed_sha256(final)
    assert moving(first.state.adapter).sha256 != moving(final).sha256


@pytest.mark.parametrize("path", ["logs/adapter", "plain.safetensors"])
def test_a_plain_lora_is_no_start_for_it(folder, path):
    folded(load_adapter(LOGS.global_final)).save(Path("plain.safetensors"))
    with pytest.raises(SettingsError, match=rf"START_FROM={path}.*different tensors \(missing: .*lora_R"):
        next(iter(fccl.FederatedRun(**SMALL, start_from=path, log_dir="logs-next")))


def test_nor_is_it_one_for_a_plain_run(folder):
    own = SMALL | {"lora_aggregation": "factors", "start_from": "logs/global_final.safetensors"}
    with pytest.raises(SettingsError, match=r"START_FROM=.*global_final.safetensors"):
        next(iter(fccl.FederatedRun(**own, log_dir="logs-next")))


@pytest.mark.parametrize(
    ("given", "because"),
    [
        ({"aggregation": "scaffold"}, "AGGREGATION=scaffold: its control variates"),
        ({"personalize": "ditto"}, "PERSONALIZE=ditto: its clients pull"),
        ({"base_precision": "int8"}, "BASE_PRECISION=int8: the first gradient"),
        ({"base_precision": "bnb-nf4"}, "BASE_PRECISION=bnb-nf4: the first gradient"),
    ],
)
def test_what_does_not_go_with_it_is_one_line(given, because):
    with pytest.raises(SettingsError, match=f"LORA_AGGREGATION=fed_sb does not go with {because}") as caught:
        require_fed_sb(load_settings({"lora_aggregation": "fed_sb", **given}))
    assert caught.value.hint
    require_fed_sb(load_settings(given))
    require_fed_sb(load_settings({"lora_aggregation": "fed_sb", "base_precision": "bf16"}))


def test_clients_train_one_at_a_time():
    fed_sb = load_settings({"lora_aggregation": "fed_sb", "clients_at_once": "2"})
    with pytest.raises(SettingsError, match="CLIENTS_AT_ONCE=2: LORA_AGGREGATION=fed_sb trains one client at a time"):
        arranged(fed_sb, "gpt2")
    assert arranged(fed_sb.model_copy(update={"clients_at_once": "auto"}), "gpt2").clients_at_once == "1"
