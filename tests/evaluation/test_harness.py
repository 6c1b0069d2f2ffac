"""lm-evaluation-harness on our model: its own model for transformers says the same, and so does `fccl evaluate`."""

import json
import math

import pytest

pytest.importorskip("lm_eval")

from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from fccl.apps.main import main
from fccl.errors import DataError, SettingsError
from fccl.evaluation.harness import load_tasks
from fccl.evaluation.harness_model import HarnessModel, until
from fccl.evaluation.suite import evaluate_model, summarise
from fccl.evaluation.task_files import CHOICE, RESPONSE, write_tasks
from fccl.model.loading import load_model
from fccl.records.evaluation import EvaluationReport
from fccl.specs import ModelSpec, TextForm
from tests.model.chats import TIGHT, with_chats

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # the harness warns of much

PAIRS = [
    ("Say it: ", "a small bird"),
    ("What is the opposite of hot?", " The opposite of hot is cold."),
    ("", "An apple is red"),
    ("Copy these words: the small bird sings in the old tree. " * 12, "I do not know."),  # longer than the context
]


def requests(kind, *arguments, task="a task"):
    return [
        Instance(request_type=kind, doc={}, arguments=each, idx=0, metadata=(task, index, 1))
        for index, each in enumerate(arguments)
    ]


@pytest.fixture(scope="module")
def theirs(tiny_model_path):
    model, tokenizer = (kind.from_pretrained(tiny_model_path) for kind in (AutoModelForCausalLM, AutoTokenizer))
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, max_length=128)


@pytest.fixture
def ours(tiny_model):
    tiny_model.load(tiny_model.initial_adapter(0))
    return HarnessModel(tiny_model, 4, greedy_tasks=("a task",))


def test_log_probabilities_and_greedy_marks_are_those_of_the_harness_s_own_model(ours, theirs, tiny_model):
    asked = requests("loglikelihood", *PAIRS, its_own(tiny_model, ours))
    mine, other = ours.loglikelihood(asked), theirs.loglikelihood(asked)
    assert [score for score, _ in mine[:3]] == pytest.approx([score for score, _ in other[:3]], abs=1e-4)
    assert [mark for _, mark in mine] == [mark for _, mark in other]
    assert mine[-1][1], "the last one is what the model itself writes"


def its_own(model, ours):
    """A context and what the model writes after it, whose text is encoded as the same token again."""
    for context in ("Name a fruit", "Say it", "Add seven", "Go away", "I do", "An apple", "the old tree", "hot"):
        ids = ours.tok_encode(context)
        text = model.tokenizer.decode(model.continuations([ids], 1)[0])
        if len(ours.tok_encode(context + text)) == len(ids) + 1 and not text.isspace():
            return context, text
    raise AssertionError("no context will do")


def test_a_whole_text_is_scored_in_windows(ours, theirs):
    texts = [("An apple is red, and so is a cherry.",), ("It is.",)]
    mine, other = (each.loglikelihood_rolling(requests("loglikelihood_rolling", *texts)) for each in (ours, theirs))
    assert mine == pytest.approx(other, abs=1e-4)
    long = ("the small bird sings in the old tree. " * 30,)
    (score,) = ours.loglikelihood_rolling(requests("loglikelihood_rolling", long))
    tokens = len(ours.tok_encode(long[0]))
    assert tokens > 2 * ours.max_length
    assert -score / tokens == pytest.approx(math.log(tiny_vocabulary(ours)), rel=0.5), "every token counts once"


def tiny_vocabulary(ours):
    return len(ours.tokenizer)


def test_answers_are_those_of_the_harness_s_own_model_up_to_the_stop(ours, theirs):
    arguments = {"until": ["."], "max_gen_toks": 9, "do_sample": False}
    asked = requests("generate_until", *((context, dict(arguments)) for context, _ in PAIRS[:2]))
    assert ours.generate_until(asked) == theirs.generate_until(asked)
    assert until("a. b", ()) == until("a. b", "#") == "a. b"


def test_our_test_split_as_tasks_is_what_evaluate_says(tiny_model, split, taught, options, boot, tmp_path):
    written = write_tasks(tiny_model, split.sft, split.va, tmp_path / "tasks")
    assert written == {RESPONSE: len(split.sft), CHOICE: len(split.va)}
    tasks = load_tasks([RESPONSE, CHOICE], tmp_path / "tasks")
    for adapter in (None, taught[1]):
        report = summarise(evaluate_model(tiny_model, "it", adapter, split, options), boot)
        response, choice = tasks.measure(tiny_model, 4)
        nats = boot.perplexity(response.values, response.weights).value
        assert math.log(nats) * len(split.sft) / report.tokens == pytest.approx(report.nll.value, abs=1e-4)
        counts = report.preference
        right = choice.values.sum() - counts.ties / 2  # of the ties, every second one has the chosen response first
        assert abs(right - counts.right) <= counts.ties / 2
        if not counts.ties:
            assert choice.values.mean() == pytest.approx(counts.accuracy.value, abs=1e-4)


def a_task(folder, name, **config):
    folder.mkdir(exist_ok=True)
    rows = [{"question": f"Say {word}", "answer": f" {word}"} for word in ("bird", "tree", "apple")]
    (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    usual = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4},
    }
    (folder / f"{name}.yaml").write_text(json.dumps(usual | config))  # JSON is YAML
    return folder


def test_a_measure_of_all_examples_together_is_named_and_left_out(tiny_model, tmp_path):
    metrics = [
        {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True},
        {"metric": "bleu", "aggregation": "bleu", "higher_is_better": True},
    ]
    told = []
    tasks = load_tasks(["words"], a_task(tmp_path / "tasks", "words", metric_list=metrics), limit=2, tell=told.append)
    (measure,) = tasks.measure(tiny_model, 4)
    assert (measure.measure, len(measure.values)) == ("exact_match", 2)
    assert told == ["words: bleu is no figure of single examples, so it has no interval: left out."]


def test_what_cannot_be_had_is_one_line_before_any_model(tmp_path, monkeypatch):
    def unreachable(name):
        raise DataError(f"{name!r} cannot be had")

    folder = a_task(tmp_path / "tasks", "afar", dataset_path="someone/nowhere")
    monkeypatch.setattr("fccl.evaluation.harness.ask_hub", unreachable)
    with pytest.raises(DataError, match="--tasks afar: 'someone/nowhere' cannot be had") as caught:
        load_tasks(["afar"], folder)
    assert "HF_HUB_OFFLINE=1" in caught.value.hint
    a_task(folder, "broken", dataset_kwargs={"data_files": {"test": str(tmp_path / "nothing.jsonl")}})
    with pytest.raises(DataError, match="--tasks broken: "):
        load_tasks(["broken"], folder)
    a_task(folder, "drawn", generation_kwargs={"until": ["\n"], "do_sample": True})
    with pytest.raises(SettingsError, match="drawn draws its answers at random"):
        load_tasks(["drawn"], folder)
    with pytest.raises(SettingsError, match="there is no such folder"):
        load_tasks(["afar"], tmp_path / "nowhere")


@pytest.fixture(scope="module")
def chat_model(tiny_model_path, tmp_path_factory):
    """A model of a chat run, whose template writes no white space where the answer begins."""
    return load_model(chat_spec(with_chats(tiny_model_path, tmp_path_factory.mktemp("chat-model"), TIGHT)))


def chat_spec(path):
    text = TextForm(prompt="chat", learn="last")
    return ModelSpec(name=path, lora_r=2, lora_alpha=4.0, lora_targets="all-linear", max_length=128, text=text)


def test_the_test_split_of_a_chat_run_as_tasks_is_what_evaluate_says(chat_model, split, options, boot, tmp_path):
    written = write_tasks(chat_model, split.sft, split.va, tmp_path / "tasks")
    assert written == {RESPONSE: len(split.sft), CHOICE: len(split.va)}
    (row, *_) = map(json.loads, (tmp_path / "tasks" / f"{RESPONSE}.jsonl").read_text().splitlines())
    assert row["prompt"] == f"<|im_start|>user: {split.sft[0].instruction}<|im_end|><|im_start|>assistant:"
    assert row["response"] == f" {split.sft[0].response}<|im_end|>"
    report = summarise(evaluate_model(chat_model, "base", None, split, options), boot)
    response, choice = load_tasks([RESPONSE, CHOICE], tmp_path / "tasks").measure(chat_model, 4)
    nats = boot.perplexity(response.values, response.weights).value
    assert math.log(nats) * len(split.sft) / report.tokens == pytest.approx(report.nll.value, abs=1e-4)
    assert abs(choice.values.sum() - report.preference.right) <= report.preference.ties


def test_a_template_whose_prompt_ends_in_white_space_is_one_line_and_writes_nothing(tiny_model_path, split, tmp_path):
    model = load_model(chat_spec(with_chats(tiny_model_path, tmp_path / "model")))
    with pytest.raises(DataError, match="would encode every example of the test split otherwise") as error:
        write_tasks(model, split.sft, split.va, tmp_path / "tasks")
    assert "white space" in error.value.hint
    assert not (tmp_path / "tasks").exists()


HISTORIES = [
    ([("user", "Say it.")], True),
    ([("system", "Be brief."), ("user", "Say it."), ("assistant", "It."), ("user", "Again.")], True),
    ([("user", "Say it."), ("assistant", "The answer is ")], False),
]


@pytest.mark.parametrize(("turns", "ask"), HISTORIES)
def test_a_chat_template_writes_a_prompt_as_the_harness_s_own_model_does(chat_model, chat_theirs, turns, ask):
    history = [{"role": role, "content": content} for role, content in turns]
    assert HarnessModel(chat_model, 4).apply_chat_template(history, ask) == chat_theirs.apply_chat_template(
        history, ask
    )


@pytest.fixture(scope="module")
def chat_theirs(chat_model):
    parts = (kind.from_pretrained(chat_model.spec.name) for kind in (AutoModelForCausalLM, AutoTokenizer))
    return HFLM(pretrained=next(parts), tokenizer=next(parts), batch_size=1, max_length=128)


def test_tasks_in_a_chat_template_are_scored_as_by_the_harness_s_own_model(chat_model, chat_theirs, tmp_path):
    """With an example in the prompt, which is a pair of turns."""
    metric = {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False}
    shots = {"num_fewshot": 1, "fewshot_split": "test", "fewshot_config": {"sampler": "first_n"}}
    folder = a_task(tmp_path / "tasks", "words", output_type="loglikelihood", metric_list=[metric], **shots)
    chat_model.load(chat_model.initial_adapter(0))
    found, plain = (load_tasks(["words"], folder, chat=chat).measure(chat_model, 4)[0] for chat in (True, False))
    theirs = simple_evaluate(
        model=chat_theirs,
        tasks=list(load_tasks(["words"], folder).tasks),
        apply_chat_template=True,
        fewshot_as_multiturn=True,
        bootstrap_iters=0,
    )
    scores = [row["perplexity"] for row in sorted(theirs["samples"]["words"], key=lambda row: row["doc_id"])]
    assert (-found.values).tolist() == pytest.approx(scores, abs=1e-4)
    assert abs(found.values - plain.values).min() > 1e-2


def test_a_model_without_a_chat_template_cannot_write_tasks_by_it(tiny_model, tmp_path):
    tasks = load_tasks(["words"], a_task(tmp_path / "tasks", "words"), chat=True)
    with pytest.raises(SettingsError, match=r"--tasks-chat: .* has no chat template"):
        tasks.require(tiny_model)


def test_no_model_is_loaded_for_tasks_whose_data_cannot_be_had(small_run, tmp_path, monkeypatch, capsys):
    def unreachable(name):
        raise DataError(f"{name!r} cannot be had")

    monkeypatch.setattr("fccl.evaluation.harness.ask_hub", unreachable)
    monkeypatch.setattr("fccl.apps.evaluate.load_model", pytest.fail)
    folder = a_task(tmp_path / "tasks", "afar", dataset_path="someone/nowhere")
    common = ["evaluate", "--log-dir", str(small_run / "logs"), "--data-dir", str(small_run / "data")]
    assert main([*common, "--tasks", "afar", "--tasks-path", str(folder)]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "error: --tasks afar: 'someone/nowhere' cannot be had"
    assert len(said) == 2


def test_the_command_writes_the_tasks_of_base_sft_and_fedva_with_paired_differences(small_run, tmp_path, capsys):
    logs, tasks = small_run / "logs", tmp_path / "tasks"
    common = ["evaluate", "--log-dir", str(logs), "--data-dir", str(small_run / "data"), "--gen-samples", "0"]
    assert main([*common, "--write-tasks", str(tasks), "--outputs-file", str(tmp_path / "answers.json")]) == 0
    assert main([*common, "--tasks", f"{RESPONSE},{CHOICE}", "--tasks-path", str(tasks)]) == 0
    report = EvaluationReport.model_validate_json((logs / "evaluation.json").read_text())
    response, choice = report.tasks
    assert (response.task, response.measure, response.higher_is_better) == (RESPONSE, "perplexity", False)
    assert len(response.estimates) == len(response.differences) == 3
    for model, nats, right in zip(report.models, response.estimates, choice.estimates, strict=True):
        assert math.log(nats.value) * nats.n / model.tokens == pytest.approx(model.nll.value, abs=1e-4)
        assert not model.preference.ties
        assert right.value == pytest.approx(model.preference.accuracy.value, abs=1e-4)
    assert "## Tasks of others" in (logs / "evaluation.md").read_text()
    assert "Tasks of others, compared" in capsys.readouterr().out
    assert {path.name for path in tmp_path.glob("answers.*")} == {f"answers.{m.name}.json" for m in report.models}
    assert main([*common, "--tasks", "no_such_task_at_all"]) == 2
    assert "there is no task no_such_task_at_all" in capsys.readouterr().err
