"""`START_FROM`: a run goes on from an adapter of one's own, which is read without trust and kept with the run."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

import fccl
from fccl.adapters.adapter import Adapter, load_adapter
from fccl.adapters.torch_files import torch_bytes
from fccl.errors import FcclError, FederationError, SettingsError
from fccl.federation.run_evaluation import run_adapters
from fccl.library.start import start_adapter
from fccl.paths import LogPaths
from fccl.records.run import RunEvent, RunInfo
from fccl.storage.reading import read_records, read_value
from fccl.transports.exchange.original import in_memory

SMALL = {"max_sft_examples": 60, "max_va_examples": 30, "fed_rounds": 1, "threads": 1}
LOGS = LogPaths(Path("logs"))


@pytest.fixture
def model(tiny_model):
    return tiny_model


@pytest.fixture
def mine(model):
    """Someone's adapter of the tiny model's LoRA."""
    draw = torch.Generator().manual_seed(3)
    shapes = model.form.shapes.items()
    return Adapter({name: 0.01 * torch.randn(shape, generator=draw) for name, shape in shapes})


def read(path, model):
    return start_adapter(path, model.spec, model.form)


def test_a_folder_that_peft_itself_has_saved_is_read(tmp_path, model, tiny_model_path, mine):
    base = AutoModelForCausalLM.from_pretrained(tiny_model_path)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", fan_in_fan_out=True)
    peft = get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_" in name:
                parameter.copy_(mine.tensors[name.replace(".default", "")])
    peft.save_pretrained(tmp_path / "theirs")
    assert read(tmp_path / "theirs", model).sha256 == mine.sha256


def test_what_a_run_exports_and_keeps_is_read(tmp_path, model, mine):
    model.write_adapter(mine, tmp_path)
    mine.save(tmp_path / "global_final.safetensors")
    assert read(tmp_path, model).sha256 == read(tmp_path / "global_final.safetensors", model).sha256 == mine.sha256


@pytest.mark.parametrize("name_of", [str, in_memory])
def test_a_file_of_torch_save_is_read_under_both_of_its_names(tmp_path, model, mine, name_of):
    (tmp_path / "mine.pt").write_bytes(torch_bytes({name_of(name): each for name, each in mine.tensors.items()}))
    assert read(tmp_path / "mine.pt", model).sha256 == mine.sha256


def changed_config(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"r": 8}, "rank 8 and alpha 8.0, the run rank 4 and alpha 8"),
        ({"lora_alpha": 16}, "rank 4 and alpha 16, the run rank 4 and alpha 8"),
        ({"r": "4"}, "the run rank 4"),
        ({"use_dora": True}, "use_dora=True"),
        ({"use_rslora": True}, "use_rslora=True"),
        ({"peft_type": "IA3"}, "peft_type='IA3'"),
        ({"alpha_pattern": {"c_attn": 32}}, "alpha_pattern="),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save="),
    ],
)
def test_another_kind_of_lora_is_one_error_with_a_way_out(tmp_path, model, mine, changes, message):
    model.write_adapter(mine, tmp_path)
    changed_config(tmp_path, **changes)
    with pytest.raises(SettingsError, match=r"START_FROM=.*adapter_config.json has") as caught:
        read(tmp_path, model)
    assert message in str(caught.value)
    assert caught.value.hint


def other_shape(mine):
    return Adapter({name: each[:, :1] if "lora_B" in name else each[:1] for name, each in mine.tensors.items()})


def fewer(mine):
    return Adapter(dict(list(mine.tensors.items())[2:]))


@pytest.mark.parametrize("change", [other_shape, fewer])
@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_other_names_and_shapes_are_refused(tmp_path, model, mine, change, kind):
    path, other = tmp_path / f"other.{kind}", change(mine)
    path.write_bytes(other.to_bytes() if kind == "safetensors" else torch_bytes(other.tensors))
    with pytest.raises(SettingsError, match=r"START_FROM=.*(has shape|different tensors)") as caught:
        read(path, model)
    assert str(caught.value).count(path.name) == 1
    assert "--lora-r" in caught.value.hint


def test_numbers_that_no_update_may_have_are_refused(tmp_path, model, mine):
    Adapter({name: 1e9 * tensor for name, tensor in mine.tensors.items()}).save(tmp_path / "huge.safetensors")
    with pytest.raises(SettingsError, match=r"START_FROM=.*huge.safetensors: it has a number of size") as caught:
        read(tmp_path / "huge.safetensors", model)
    assert caught.value.hint == "updates have at most 1,000,000"


def test_a_file_that_is_too_long_is_not_read(tmp_path, model):
    path = tmp_path / "huge.safetensors"
    path.touch()
    os.truncate(path, 2**40)
    with pytest.raises(SettingsError, match=r"has 1,099,511,627,776 bytes, an adapter of the run at most"):
        read(path, model)


@pytest.mark.parametrize("name", ["none.safetensors", "none.pt", "none"])
def test_a_file_that_is_not_there_says_what_may_be_named(tmp_path, model, name):
    with pytest.raises(SettingsError, match=f"START_FROM=.*{name}: there is no such file") as caught:
        read(tmp_path / name, model)
    assert "a folder of PEFT" in caught.value.hint


def test_a_folder_without_weights_says_which_file_it_lacks(tmp_path, model, mine):
    model.write_adapter(mine, tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(SettingsError, match=r": there is no adapter_model.safetensors in it"):
        read(tmp_path, model)


@pytest.mark.parametrize("name", ["mine.safetensors", "mine.pt"])
def test_what_is_no_adapter_is_one_line(tmp_path, model, name):
    (tmp_path / name).write_bytes(b"\x80\x02c__builtin__\nexec\n")
    with pytest.raises(SettingsError, match="START_FROM=") as caught:
        read(tmp_path / name, model)
    assert str(caught.value).count(name) == 1


# --- runs


@pytest.fixture
def folder(small_run, tmp_path, monkeypatch):
    """With prepared data and a finished run of one round of each phase."""
    shutil.copytree(small_run / "data", tmp_path / "data")
    shutil.copytree(small_run / "logs", tmp_path / "logs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_starts_from_the_adapter_of_the_run_that_it_archives_and_goes_on_without_the_file(folder):
    earlier = load_adapter(LOGS.global_final)
    whole = fccl.FederatedRun(**SMALL, start_from="logs/global_final.safetensors", log_dir="logs-whole").train()
    told = []
    run = fccl.FederatedRun(**SMALL, start_from="logs/adapter", tell=told.append)
    first = next(iter(run))
    assert first.inputs.task.adapter.sha256 == earlier.sha256
    assert any(line.startswith(f"The run starts from the adapter {earlier.sha256[:12]} (START_FROM)") for line in told)
    assert not (folder / "logs" / "adapter").exists()  # it is in the archive now
    assert fccl.FederatedRun(resume=True).train().sha256 == whole.sha256
    assert read_value(LOGS.run, RunInfo).start_sha256 == earlier.sha256
    archived = LogPaths(next(LOGS.archive.iterdir()))
    (started,) = read_records(LOGS.progress, RunEvent, lambda row: row.get("event") == "started")
    (before,) = read_records(archived.progress, RunEvent, lambda row: row.get("event") == "started")
    assert started.validation == before.validation  # the base model's is the base model's
    assert started.start.loss < started.validation.loss


def test_the_start_is_a_column_beside_the_base_model(folder):
    run = fccl.FederatedRun(**SMALL, sft_rounds=0, start_from="logs/adapter", gen_samples=0, bootstrap_samples=100)
    run.train()
    report = run.evaluate(sft=4, va=4)
    assert [model.name for model in report.models] == ["base", "start", "FedVA"]
    assert [model.adapter_sha256 is None for model in report.models] == [True, False, False]
    LOGS.start.write_bytes(LOGS.global_final.read_bytes())
    with pytest.raises(FederationError, match="is not the adapter that"):
        run_adapters(LOGS)


def scaled(by):
    """The earlier run's adapter, its B larger: with a large factor it is of no use, and no number of it is refused."""
    earlier = load_adapter(LOGS.global_final)
    tensors = {name: tensor * (by if "lora_B" in name else 1.0) for name, tensor in earlier.tensors.items()}
    Adapter(tensors).save(Path("scaled.safetensors"))
    return "scaled.safetensors"


def test_a_start_that_is_worse_than_the_base_model_says_so_before_the_first_round(folder):
    told = []
    next(iter(fccl.FederatedRun(**SMALL, start_from=scaled(-30.0), tell=told.append)))
    assert any(line.startswith("That loss is above the base model's ") for line in told)


def test_a_start_without_a_finite_loss_is_not_blamed_on_the_learning_rate(folder, monkeypatch):
    earlier = load_adapter(LOGS.global_final)
    tensors = {name: torch.full_like(tensor, 1e6) for name, tensor in earlier.tensors.items()}
    Adapter(tensors).save(Path("broken.safetensors"))
    with pytest.raises(SettingsError, match="START_FROM: under this adapter") as caught:
        fccl.FederatedRun(**SMALL, start_from="broken.safetensors").train()
    assert "sft-lr" not in caught.value.hint
    assert not LOGS.archive.exists()


def test_a_bad_adapter_leaves_the_run_that_is_there_as_it_was(folder):
    with pytest.raises(SettingsError, match="START_FROM=nowhere: there is no such file"):
        fccl.FederatedRun(**SMALL, start_from="nowhere").train()
    assert not LOGS.archive.exists()
    assert fccl.FederatedRun(resume=True).finished


def test_a_start_under_which_no_loss_is_finite_leaves_it_too(folder):
    """Its numbers are such as an update may have."""
    earlier = load_adapter(LOGS.global_final)
    huge = {name: torch.full_like(tensor, 1e5) for name, tensor in earlier.tensors.items()}
    Adapter(huge).save(folder / "big.safetensors")
    with pytest.raises(FcclError, match="not finite"):
        fccl.FederatedRun(**SMALL, start_from="big.safetensors").train()
    assert not LOGS.archive.exists()
    assert fccl.FederatedRun(resume=True).finished
