"""A federation from Python is the run of the commands: the same bytes, the same folder, however often it is left."""

import shutil
from pathlib import Path

import pytest
import torch

import fccl
from fccl.adapters.adapter import load_adapter
from fccl.aggregation.coordinates import Median
from fccl.apps.main import main
from fccl.errors import DataError, FederationError, ModelError, SettingsError, StorageError
from fccl.paths import LogPaths
from fccl.records.run import RoundRecord, RunEvent
from fccl.storage.reading import read_records
from fccl.tracking.listener import RunListener

SMALL = {"max_sft_examples": 60, "max_va_examples": 30, "fed_rounds": 1, "threads": 1}
ARGUMENTS = [word for name, value in SMALL.items() for word in ("--" + name.replace("_", "-"), str(value))]
LOGS = LogPaths(Path("logs"))


@pytest.fixture(autouse=True)
def folder(small_run, tmp_path, monkeypatch):
    """With prepared data and no run."""
    shutil.copytree(small_run / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def hashes(logs=LOGS):
    return [record.adapter_sha256 for record in read_records(logs.progress, RoundRecord)]


def events(logs=LOGS):
    return [event.event for event in read_records(logs.progress, RunEvent) if event.event != "round"]


def test_it_has_the_bytes_of_the_command_and_the_command_resumes_what_a_loop_has_left(capsys):
    assert main(["run", *ARGUMENTS, "--no-evaluate", "--log-dir", "logs-command"]) == 0
    capsys.readouterr()
    for _ in fccl.FederatedRun(**SMALL):
        break
    assert capsys.readouterr() == ("", "")
    assert events() == ["started", "interrupted"]
    assert main(["run", "--resume", "--no-evaluate"]) == 0
    assert hashes() == hashes(LogPaths(Path("logs-command")))
    assert LOGS.global_final.read_bytes() == LogPaths(Path("logs-command")).global_final.read_bytes()


def test_a_loop_that_was_left_goes_on_with_the_next_and_ends_as_if_it_had_never_been(small_run):
    told, whole = [], load_adapter(LogPaths(small_run / "logs").global_final)
    run = fccl.FederatedRun(**SMALL, tell=told.append)
    for _ in run:
        break
    assert (run.finished, told[-1]) == (
        False,
        "Stopped with 1 of 2 rounds complete. Loop over it again, or use resume=True, to go on.",
    )
    assert [result.record.round for result in run] == [1]
    assert run.finished
    assert run.adapter.sha256 == whole.sha256 == hashes()[-1]
    assert list(run) == []
    assert events() == ["started", "interrupted", "resumed", "finished"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_ctrl_c_and_an_error_in_the_loop_leave_a_run_that_another_process_may_go_on_with(error):
    def left():
        for _ in fccl.FederatedRun(**SMALL):
            raise error

    with pytest.raises(error):
        left()
    assert events()[-1] == "interrupted"
    run = fccl.FederatedRun(resume=True)
    assert [result.record.round for result in run] == [1]
    assert run.finished


def test_a_run_that_was_left_is_evaluated_and_exported_as_it_is(folder):
    run = fccl.FederatedRun(**SMALL, gen_samples=0, bootstrap_samples=100)
    result = next(iter(run))
    assert [model.name for model in run.evaluate(sft=4, va=4).models] == ["base", "round 1"]
    assert not LOGS.evaluation_json.exists()
    run.export("mine")
    assert (folder / "mine" / "adapter_model.safetensors").is_file()
    assert run.adapter.sha256 == result.record.adapter_sha256
    with pytest.raises(StorageError, match="mine exists already"):
        run.export("mine")


def test_a_finished_run_is_evaluated_into_its_folder(small_run, folder):
    shutil.copytree(small_run / "logs", folder / "logs")
    run = fccl.FederatedRun(resume=True)
    report = run.evaluate(sft=4, va=4, per_client=True, gen_samples=0, bootstrap_samples=100)
    assert [client.client_id for client in report.clients] == [0, 1, 2]
    assert fccl.read_run().evaluation == report
    assert run.export("whole", merge=True) == Path("whole")


def test_an_earlier_run_is_kept_and_can_be_read():
    first = fccl.FederatedRun(**SMALL)
    next(iter(first))
    second = fccl.FederatedRun(**SMALL)
    next(iter(second))
    entries = fccl.list_runs()
    assert [entry.current for entry in entries] == [True, False]
    assert len(fccl.read_run(run_id=entries[1].run_id).rounds) == 1
    with pytest.raises(FederationError, match="no longer holds run"):
        next(iter(first))
    with pytest.raises(FederationError, match="holds no run nobody"):
        fccl.read_run(run_id="nobody")


def test_a_listener_hears_heartbeats_and_answers_of_the_round():
    class Heard(RunListener):
        def __init__(self):
            self.states, self.answers = [], []

        def status(self, status):
            self.states.append(status.state)

        def answer(self, answer):
            self.answers.append(answer.client_id)

    heard = Heard()
    next(iter(fccl.FederatedRun(**SMALL, listener=heard)))
    assert heard.answers == [0, 1, 2]
    assert {"training", "done"} <= set(heard.states)


def test_the_settings_of_the_data_are_those_of_the_run_and_another_is_refused():
    data = fccl.prepare(max_sft_examples=60, max_va_examples=30)
    assert fccl.FederatedRun(data, fed_rounds=1).settings.max_sft_examples == 60
    with pytest.raises(SettingsError, match="max_sft_examples=7: the data was prepared with 60"):
        fccl.FederatedRun(data, max_sft_examples=7)


@pytest.mark.parametrize(
    ("arguments", "said", "hint"),
    [
        ({"fed_round": 1}, "unknown setting FED_ROUND", "did you mean FED_ROUNDS?"),
        ({"fed_rounds": 0}, "FED_ROUNDS=0: allowed is a whole number >= 1", ""),
        (
            {"client_id": 1},
            "fccl.FederatedRun does not read client_id",
            "leave it out; it is read by fccl.Client",
        ),
        ({"evaluate": True}, "fccl.FederatedRun does not read evaluate", "call evaluate() of the run"),
        ({"data_dir": "logs"}, "DATA_DIR=logs and LOG_DIR=logs are the same folder", "give each a folder of its own"),
    ],
)
def test_a_wrong_argument_is_one_line_before_anything_is_written(folder, arguments, said, hint):
    with pytest.raises(SettingsError) as caught:
        fccl.FederatedRun(**arguments)
    assert (str(caught.value), caught.value.hint) == (said, hint)
    assert getattr(caught.value, "__notes__", []) == [f"hint: {hint}"] * bool(hint)
    assert [path.name for path in folder.iterdir()] == ["data"]


def test_before_it_has_begun_there_is_nothing_to_evaluate():
    run = fccl.FederatedRun(**SMALL)
    for ask in (run.evaluate, lambda: run.export("mine"), lambda: run.adapter):
        with pytest.raises(FederationError, match="the run has not begun"):
            ask()


def test_one_s_own_learner_trains_in_the_place_of_ours():
    class Idle:
        """It answers, and changes nothing."""

        def fit(self, task, shard, on_status):
            from fccl.records.run import Contribution, TrainingReport

            said = Contribution(avg_loss=1.0, num_samples=len(shard.of(task.phase)), seconds=0.0)
            report = TrainingReport(tokens=1, tokens_per_second=1.0, steps=1)
            return fccl.ClientUpdate(task.run_id, shard.client_id, task.round, task.phase, task.trained, said, report)

    run = fccl.FederatedRun(**SMALL, learner=Idle())
    adapter = run.train()
    assert adapter.sha256 == load_adapter(LOGS.global_adapter(2)).sha256
    assert {record.update_norm for record in read_records(LOGS.progress, RoundRecord)} == {0.0}


@pytest.mark.parametrize(("engine", "precision"), [("gpt2", "int8"), ("auto", "bnb-nf4")])
def test_a_run_in_fewer_bits_says_so_wherever_it_is_written_down(folder, engine, precision):
    run = fccl.FederatedRun(**SMALL, engine=engine, base_precision=precision)
    run.train()
    assert fccl.read_run(run.log_dir).info.settings["base_precision"] == precision
    report = run.evaluate(sft=6, va=6, gen_samples=0, skip_base=True)
    assert report.base_precision == precision
    assert f"builtin:micro in {precision} on the test split" in LOGS.evaluation_markdown.read_text()
    assert f"Trained on the base model in {precision}." in (LOGS.adapter / "README.md").read_text()
    assert run.adapter.sha256 == fccl.FederatedRun(**SMALL, engine=engine, base_precision=precision).train().sha256


def test_int8_on_a_gpu_is_refused_before_anything_is_written(monkeypatch):
    monkeypatch.setattr("fccl.model.precision.own_device", lambda: torch.device("cuda"))
    with pytest.raises(ModelError, match=r"BASE_PRECISION=int8: .* this process has a GPU"):
        fccl.FederatedRun(**SMALL, base_precision="int8").train()
    assert not LOGS.run.exists()


def test_a_wrong_argument_that_is_no_setting_is_one_line_with_the_values_that_there_are():
    data = fccl.prepare(**{name: SMALL[name] for name in ("max_sft_examples", "max_va_examples")})
    with pytest.raises(SettingsError, match=r"^phase='dpo': allowed is one of sft, va"):
        data.topics("dpo")
    with pytest.raises(SettingsError, match=r"^split='train': allowed is one of learn, validation, test"):
        data.examples("train", "sft")
    for client in (-1, 3, "a"):
        with pytest.raises(DataError, match=f"there is no client {client!r}"):
            data.shard(client)
    with pytest.raises(SettingsError, match=r"^fccl.FederatedRun takes prepared data, not dict"):
        fccl.FederatedRun({"num_clients": 3})
    for count in (-1, "all", 2.5, True):
        with pytest.raises(SettingsError, match="allowed is a whole number >= 0"):
            fccl.FederatedRun(**SMALL).evaluate(sft=count)
        with pytest.raises(SettingsError, match="allowed is a whole number >= 0"):
            fccl.FederatedRun(**SMALL).evaluate(va=count)


def test_a_folder_of_data_that_alone_is_named_is_not_replaced(folder):
    """Its settings are not given, so that others would be those of the run."""
    manifest = (folder / "data" / "manifest.json").read_bytes()
    with pytest.raises(SettingsError, match=r"MAX_SFT_EXAMPLES=60, MAX_VA_EXAMPLES=30\n") as caught:
        fccl.FederatedRun(data_dir="data", fed_rounds=1)
    assert caught.value.hint.startswith("give the run these settings, or data=fccl.prepare(…)")
    assert (folder / "data" / "manifest.json").read_bytes() == manifest
    fccl.FederatedRun(**SMALL, data_dir="data")
    fccl.FederatedRun(data_dir="data", max_sft_examples=30)
    fccl.FederatedRun(data_dir="nothing there")
    (folder / "data" / "manifest.json").write_text("{")
    fccl.FederatedRun(data_dir="data")


def test_a_rule_that_is_built_already_is_refused_with_its_class_as_the_way_out():
    with pytest.raises(SettingsError, match=r"^contribution_source is an object of the class Median\n") as caught:
        fccl.FederatedRun(**SMALL, contribution_source=Median())
    assert caught.value.hint.startswith("give the class itself, contribution_source=Median: ")


def test_a_notebook_shows_an_evaluation_and_a_run_that_was_read_in_one_line(small_run, folder):
    shutil.copytree(small_run / "logs", folder / "logs")
    run = fccl.FederatedRun(resume=True)
    report = run.evaluate(sft=4, va=4, gen_samples=0, bootstrap_samples=100)
    perplexities = ", ".join(f"{model.name} {model.perplexity.value:.2f}" for model in report.models)
    assert repr(report) == f"<EvaluationReport of builtin:micro: perplexity {perplexities}; 4 instructions, 4 pairs>"
    view = fccl.read_run()
    assert repr(view) == f"<RunView of logs/: run {view.run_id!r}, 2 of 2 rounds>"


def test_a_notebook_shows_data_and_run_in_one_line():
    run = fccl.FederatedRun(**SMALL)
    assert repr(run) == "<fccl.FederatedRun in logs/: 0 of 2 rounds>"
    for _ in run:
        break
    assert repr(run) == "<fccl.FederatedRun in logs/: 1 of 2 rounds>"
    splits = "train 42 SFT, 22 VA; learn 3 SFT, 1 VA; validation 3 SFT, 1 VA; test 12 SFT, 6 VA"
    assert repr(fccl.prepare(max_sft_examples=60, max_va_examples=30)) == f"<Data in data/: 3 clients; {splits}>"
