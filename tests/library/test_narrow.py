"""What a run decides once, when it starts, and keeps."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from fccl.config import Settings, load_settings
from fccl.errors import ModelError, SettingsError
from fccl.federation.run_folder import RunFolder
from fccl.library.narrow import (
    aggregation_rule,
    arranged,
    begun,
    each_alone,
    recorded_settings,
    require_late_updates,
    require_scores,
    settings_of,
)
from fccl.library.standing import standing
from fccl.model.base_model import BUILTIN_MODEL
from fccl.records.run import RunInfo
from fccl.specs import TextForm, TrainSpec
from fccl.specs.codecs import CodecSpec
from fccl.testing.toy import START, TRAIN, federation
from tests.model.chats import CHATML

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def on(monkeypatch):
    """Put this process on a device, as far as the choice of a precision can tell."""
    return lambda device: monkeypatch.setattr("fccl.model.precision.own_device", lambda: device)


@pytest.mark.parametrize("source", ["loss_inverse", "data_loss_combined", "validation_loss"])
def test_a_source_that_divides_by_a_loss_goes_with_no_loss_that_may_be_negative(source):
    given = {"contribution_source": source, "preference_loss": "robust"}
    with pytest.raises(SettingsError, match=f"CONTRIBUTION_SOURCE={source} divides by the loss") as caught:
        require_scores(load_settings(given))
    assert "verified" in caught.value.hint
    require_scores(load_settings({**given, "preference_loss": "ipo"}))
    require_scores(load_settings({**given, "contribution_mode": "uniform"}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("aggregation", "scaffold"),
        ("aggregation", "median"),
        ("aggregation", "trimmed_mean"),
        ("aggregation", "krum"),
        ("aggregation", "multi_krum"),
        ("lora_aggregation", "svd"),
        ("lora_aggregation", "exact"),
        ("lora_aggregation", "nearly"),
    ],
)
def test_late_updates_go_with_no_rule_under_which_a_change_from_elsewhere_means_nothing(name, value):
    with pytest.raises(SettingsError, match=f"LATE_UPDATES=next does not go with {name.upper()}={value}: "):
        require_late_updates(load_settings({"late_updates": "next", name: value}))
    require_late_updates(load_settings({name: value}))


@pytest.mark.parametrize("name", ["fedavg", "fedprox", "fedadam", "fedexp", "norm_clipping", "geometric_median"])
@pytest.mark.parametrize("lora", ["factors", "freeze_a", "fed_sb"])
def test_late_updates_go_with_means_of_factors(name, lora):
    require_late_updates(load_settings({"late_updates": "next", "aggregation": name, "lora_aggregation": lora}))


def test_late_updates_without_kept_rounds_are_one_line():
    settings = load_settings({"late_updates": "next", "keep_rounds": "0"})
    with pytest.raises(SettingsError, match="LATE_UPDATES=next needs KEEP_ROUNDS >= 1"):
        settings.exchange_spec()


def test_exo_without_smooth_labels_is_one_line_and_no_task_either():
    with pytest.raises(SettingsError, match="needs a LABEL_SMOOTHING above 0"):
        load_settings({"preference_loss": "exo_pair", "label_smoothing": "0"})
    with pytest.raises(ValueError, match="needs a LABEL_SMOOTHING above 0"):
        TrainSpec(**{**TRAIN.model_dump(), "preference_loss": "exo_pair", "label_smoothing": 0.0})


def info_of(settings, *without):
    said = {name: str(value) for name, value in settings.model_dump().items() if name not in without}
    return RunInfo(run_id="run", created=1.0, settings=said, data_sha256="", versions={})


def folder_of(settings, *without):
    """A folder with a run that has begun with these settings, and no more."""
    folder = RunFolder.at(settings.log_dir)
    folder.paths.root.mkdir(parents=True, exist_ok=True)
    folder.start(info_of(settings, *without), federation(rounds=3).plan, START.adapter)
    return folder


@pytest.mark.parametrize(("device", "precision"), [(CPU, "fp32"), (GPU, "bf16")])
def test_auto_is_decided_by_the_machine_where_a_run_begins(on, device, precision):
    on(device)
    found = begun(load_settings(), print)
    assert found.base_precision == precision
    assert found.model_spec().base_precision == precision
    assert begun(found, print) == found


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "bnb-int8", "bnb-nf4"])
@pytest.mark.parametrize("device", [CPU, GPU])
def test_a_precision_that_is_named_is_kept_everywhere(on, device, precision):
    on(device)
    asked = load_settings({"base_precision": precision})
    assert begun(asked, print).model_spec().base_precision == precision


@pytest.mark.parametrize(
    ("device", "asked", "computes", "at_once"),
    [
        (CPU, "auto", "gpt2", 1),
        (CPU, "auto", "generic", 1),
        (CPU, "generic", "generic", 1),
        (GPU, "gpt2", "gpt2", 8),
        (GPU, "generic", "generic", 1),
        (GPU, "auto", "gpt2", 8),
        (GPU, "auto", "generic", 1),
    ],
)
def test_so_many_clients_train_at_once_as_pays_for_the_engine_on_the_machine_where_a_run_begins(
    on, device, asked, computes, at_once
):
    on(device)
    found = arranged(begun(load_settings({"engine": asked}), print), computes)
    assert (found.at_once, found.clients_at_once) == (at_once, str(at_once))
    on(CPU if device == GPU else GPU)
    assert arranged(begun(found, print), computes) == found


@pytest.mark.parametrize("device", [CPU, GPU])
def test_the_generic_engine_is_not_asked_for_several_at_once_whoever_chose_it(on, device):
    on(device)
    four = {"clients_at_once": "4"}
    assert arranged(begun(load_settings(four), print), "gpt2").at_once == 4
    refused = "CLIENTS_AT_ONCE=4: the engine generic, which computes builtin:micro, trains one client at a time"
    with pytest.raises(SettingsError, match=refused):
        begun(load_settings({**four, "engine": "generic"}), print)
    with pytest.raises(SettingsError, match=refused) as error:
        arranged(begun(load_settings(four), print), "generic")
    assert "GPT-2" in error.value.hint


@pytest.mark.parametrize("text", ["0", "-1", "two", "65", "1.5", ""])
def test_a_number_of_clients_that_is_none_is_one_line(text):
    with pytest.raises(SettingsError, match="CLIENTS_AT_ONCE"):
        load_settings({"clients_at_once": text})


def test_where_clients_are_alone_an_argument_is_refused_and_an_environment_is_not_read(monkeypatch):
    given = {"clients_at_once": "4"}
    with pytest.raises(SettingsError, match="CLIENTS_AT_ONCE=4: each is alone"):
        each_alone(load_settings(given), given, "each is alone")
    assert each_alone(load_settings({"clients_at_once": "1"}), {"clients_at_once": "1"}, "").at_once == 1
    monkeypatch.setenv("CLIENTS_AT_ONCE", "4")
    assert each_alone(load_settings(), {}, "each is alone").clients_at_once == "1"


def test_a_resumed_run_keeps_what_it_began_with_on_another_machine_too(on):
    on(CPU)
    folder = folder_of(begun(load_settings(), print))
    on(GPU)
    for given in ({}, {"base_precision": "auto"}):
        assert standing(folder, load_settings(given)) == "unfinished"
        assert recorded_settings(folder, load_settings(given), given).base_precision == "fp32"


def test_a_resumed_run_refuses_another_precision_and_an_orchestrator_begins_another_run():
    folder, given = folder_of(begun(load_settings({"base_precision": "int8"}), print)), {"base_precision": "bf16"}
    with pytest.raises(SettingsError, match="BASE_PRECISION=bf16: the run to resume has int8") as error:
        recorded_settings(folder, load_settings(given), given)
    assert "leave it out" in error.value.hint
    assert standing(folder, load_settings(given)) == "other"


def test_the_environment_does_not_change_a_resumed_run(monkeypatch):
    folder = folder_of(begun(load_settings({"base_precision": "int8"}), print))
    monkeypatch.setenv("BASE_PRECISION", "bf16")
    assert recorded_settings(folder, load_settings(), {}).base_precision == "int8"
    assert settings_of(folder.info()).base_precision == "int8"


@pytest.mark.parametrize(
    ("name", "now", "once"),
    [
        ("base_precision", "bf16", "fp32"),
        ("engine", "gpt2", "generic"),
        ("clients_at_once", "4", "1"),
        ("prompt_format", "chat", "plain"),
    ],
)
def test_a_record_that_does_not_say_it_means_what_its_version_did(monkeypatch, name, now, once):
    folder = folder_of(begun(load_settings(), print), name)
    monkeypatch.setenv(name.upper(), now)
    assert getattr(settings_of(folder.info()), name) == once
    assert getattr(recorded_settings(folder, load_settings(), {}), name) == once
    with pytest.raises(SettingsError, match=f"the run to resume has {once}"):
        recorded_settings(folder, load_settings(), {name: now})
    for value in (once, "auto"):
        assert standing(folder, load_settings({name: value})) == "unfinished"
        assert getattr(recorded_settings(folder, load_settings({name: value}), {name: value}), name) == once


@pytest.mark.int8
@pytest.mark.parametrize(("has", "lines"), [({"avx2": True}, 1), ({"avx512_vnni": True}, 0)])
def test_int8_on_a_processor_without_its_instructions_is_said_once_and_not_refused(monkeypatch, has, lines):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    told = []
    begun(load_settings({"base_precision": "int8"}), told.append)
    begun(load_settings(), told.append)
    assert [line.partition(":")[0] for line in told] == ["BASE_PRECISION=int8"] * lines


def test_a_model_of_one_s_own_begins_with_its_preset_in_one_line_and_with_its_own_context(tiny_model_path):
    told = []
    given = {"model_name": str(tiny_model_path), "va_lr": "1e-5"}
    found = begun(load_settings(given), told.append)
    assert (found.sft_lr, found.va_lr, found.max_length) == (2e-4, 1e-5, 128)
    assert told == [
        f"PRESET=pretrained for {tiny_model_path}: SFT_LR=0.0002, DPO_BETA=0.1, LR_SCHEDULE=linear, MAX_LENGTH=128. "
        "What you set yourself wins."
    ]
    begun(load_settings(), told.append)
    begun(load_settings({**given, "preset": "quickstart"}), told.append)
    assert len(told) == 1, "other presets are silent"


def test_a_resumed_run_keeps_its_preset_and_the_length_that_it_began_with(tiny_model_path):
    given = {"model_name": str(tiny_model_path)}
    folder = folder_of(begun(load_settings(given), print))
    assert standing(folder, load_settings(given)) == "unfinished"
    for again in ({}, given):
        found = recorded_settings(folder, load_settings(again), again)
        assert (found.preset, found.sft_lr, found.max_length) == ("pretrained", 2e-4, 128)
    assert settings_of(folder.info()).max_length == 128
    with pytest.raises(SettingsError, match="MAX_LENGTH=64: the run to resume has 128"):
        recorded_settings(folder, load_settings({"max_length": "64"}), {"max_length": "64"})


QUIET = {"preset": "quickstart"}  # which says nothing of itself


def with_template(tiny_model_path, folder, template):
    """The tiny model in a folder of its own, its tokenizer with this chat template."""
    shutil.copytree(tiny_model_path, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_auto_takes_the_chat_template_where_the_model_has_one_and_says_so(tiny_model_path, tmp_path):
    model, told = with_template(tiny_model_path, tmp_path / "chat", CHATML), []
    found = begun(load_settings({**QUIET, "model_name": model, "learn_turns": "all"}), told.append)
    assert found.prompt_format == "chat"
    assert found.model_spec().text == TextForm(prompt="chat", learn="all")
    assert told == [f"PROMPT_FORMAT=chat: {model} has a chat template."]
    plain = load_settings({**QUIET, "model_name": model, "prompt_format": "plain"})
    assert begun(plain, told.append).model_spec().text == TextForm()
    assert len(told) == 1


@pytest.mark.parametrize("named", [BUILTIN_MODEL, "tiny"])
def test_auto_is_the_plain_form_for_the_built_in_model_and_any_without_a_template(tiny_model_path, named):
    model = BUILTIN_MODEL if named == BUILTIN_MODEL else str(tiny_model_path)
    told = []
    found = begun(load_settings({**QUIET, "model_name": model}), told.append)
    assert (found.prompt_format, found.model_spec().text, told) == ("plain", TextForm(), [])
    with pytest.raises(SettingsError, match=r"LEARN_TURNS=all: .* has no chat template"):
        begun(load_settings({"model_name": model, "learn_turns": "all"}), told.append)


def test_a_model_that_is_not_there_is_said_before_anything_is_decided(tmp_path):
    with pytest.raises(ModelError, match="there is no such folder"):
        begun(load_settings({"model_name": str(tmp_path / "none")}), print)


def test_an_adapter_without_a_tokenizer_has_its_base_models_template(tiny_model_path, tmp_path):
    base = with_template(tiny_model_path, tmp_path / "chat", CHATML)
    lora = LoraConfig(r=1, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora).save_pretrained(tmp_path / "lora")
    assert begun(load_settings({"model_name": str(tmp_path / "lora")}), lambda line: None).prompt_format == "chat"


@pytest.mark.parametrize(
    ("given", "because"),
    [
        ({"update_codec": "int8", "aggregation": "scaffold"}, "AGGREGATION=scaffold: control variates"),
        ({"update_codec": "fp16", "lora_aggregation": "svd"}, "LORA_AGGREGATION=svd"),
        ({"update_codec": "topk", "lora_aggregation": "exact"}, "LORA_AGGREGATION=exact"),
        ({"update_codec": "topk", "aggregation": "median"}, "AGGREGATION=median"),
        ({"update_codec": "topk", "aggregation": "trimmed_mean"}, "AGGREGATION=trimmed_mean"),
        ({"update_codec": "topk", "aggregation": "multi_krum"}, "AGGREGATION=multi_krum"),
    ],
)
def test_rules_that_do_not_compute_with_coded_changes_are_refused(given, because):
    with pytest.raises(
        SettingsError, match=f"UPDATE_CODEC={given['update_codec']} does not go with {because}"
    ) as caught:
        aggregation_rule(load_settings(given))
    assert caught.value.hint
    aggregation_rule(load_settings({**given, "update_codec": "fp32"}))


@pytest.mark.parametrize("name", ["fedavg", "fedadam", "fedexp", "norm_clipping", "fedprox"])
def test_rules_that_compute_with_changes_take_any_codec(name):
    for codec in ("fp16", "int8", "int4", "int3", "topk"):
        assert aggregation_rule(load_settings({"update_codec": codec, "aggregation": name})).name == name
    aggregation_rule(load_settings({"update_codec": "int4", "aggregation": "median"}))


def test_a_task_of_a_run_without_a_codec_does_not_name_one():
    usual, topk = load_settings({}), load_settings({"update_codec": "topk", "topk_share": "0.1"})
    assert "codec" not in usual.train_spec("sft").model_dump()
    assert topk.train_spec("va").codec == CodecSpec(name="topk", share=0.1)
    assert load_settings({"update_codec": "int8", "topk_share": "0.1"}).codec_spec() == CodecSpec(name="int8")


def test_int8_that_is_refused_anyway_is_not_called_slow(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True}, raising=False)
    wrong = SimpleNamespace(product=lambda rows: 2 * rows @ rows.T)
    monkeypatch.setattr("fccl.model.precision.Packed8", SimpleNamespace(of=lambda matrix: wrong))
    told = []
    assert begun(load_settings({"base_precision": "int8"}), told.append).base_precision == "int8"
    assert told == []
