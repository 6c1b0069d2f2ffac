import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.data.examples import PreferencePair, SftExample
from fccl.evaluation.preference import preference
from fccl.evaluation.suite import EvaluationSplit, evaluate_model, same_answer, subset, summarise
from fccl.model.encoding import encode_sft
from fccl.model.generate import generate
from fccl.model.scoring import score_sft
from fccl.records.evaluation import ModelEvaluation


@pytest.fixture(scope="module")
def evaluated(tiny_model, an_adapter, split, options):
    return evaluate_model(tiny_model, "SFT", an_adapter(1), split, options)


@pytest.fixture(scope="module")
def summary(evaluated, boot):
    return summarise(evaluated, boot)


def test_perplexity_is_that_of_the_scores(tiny_model, an_adapter, split, summary):
    tiny_model.load(an_adapter(1))
    scores = score_sft(tiny_model, encode_sft(tiny_model.tokenizer, split.sft, 128), 1)
    assert summary.nll.value == pytest.approx(scores.nll.sum() / scores.tokens.sum(), rel=1e-6)
    assert summary.perplexity.value == pytest.approx(math.exp(summary.nll.value))
    assert summary.tokens == scores.tokens.sum()


def test_every_number_says_how_many_examples_it_is_over(split, summary):
    assert (summary.perplexity.n, summary.nll.n, summary.margin.n) == (9, 9, 8)
    assert summary.exact is not None
    assert summary.exact.n == len(split.answered) == 6
    for each in (summary.preference, summary.preference_per_token):
        assert (each.right + each.wrong, each.ties) == (7, 1)


def test_topics_and_flaws_share_out_the_examples(summary):
    assert [(topic.topic, topic.perplexity.n) for topic in summary.topics] == [("birds", 3), ("fruit", 3), ("talk", 3)]
    assert [topic.exact.n if topic.exact else None for topic in summary.topics] == [3, 3, None]
    assert [flaw.flaw for flaw in summary.flaws] == ["rude", "wrong"]
    assert sum(flaw.preference.right for flaw in summary.flaws) == summary.preference.right
    assert sum(flaw.preference.ties for flaw in summary.flaws) == 1


def test_no_adapter_is_the_base_model(tiny_model, split, options, boot):
    base = evaluate_model(tiny_model, "base", None, split, options)
    other = evaluate_model(tiny_model, "B is zero", tiny_model.initial_adapter(77), split, options)
    assert (base.sft.nll == other.sft.nll).all()
    assert base.generations == other.generations
    assert summarise(base, boot).adapter_sha256 is None


def exact_of(tiny_model, taught, options, answers):
    """Exact answers of the taught model when these are the answers; the responses say something else."""
    examples, adapter = taught
    sft = [
        SftExample(example.instruction, "something else", answer=answer)
        for example, answer in zip(examples, answers, strict=True)
    ]
    return evaluate_model(
        tiny_model, "SFT", adapter, EvaluationSplit(sft, [PreferencePair("a", "b", "c")]), options
    ).exact.tolist()


def test_what_was_learnt_by_heart_is_exact_and_likelier(tiny_model, taught, options, boot):
    examples, adapter = taught
    assert exact_of(tiny_model, taught, options, [example.response for example in examples]) == [1, 1, 1, 1]
    split = EvaluationSplit(
        examples, [PreferencePair(example.instruction, example.response, "It is so.") for example in examples]
    )
    base, found = (summarise(evaluate_model(tiny_model, "", each, split, options), boot) for each in (None, adapter))
    assert found.perplexity.value < base.perplexity.value / 10
    assert (found.preference.right, found.preference.ties) == (4, 0)


def test_a_wrong_answer_and_one_that_goes_on_are_not_exact(tiny_model, taught, options):
    assert exact_of(tiny_model, taught, options, ["It is cold.", "It is red", "It is", " It  is cold. "]) == [
        0,
        0,
        0,
        1,
    ]
    assert exact_of(tiny_model, taught, options, ["It is", "It is red and", "It is a", "It"]) == [0, 0, 0, 0]


def test_preference_is_by_sum_and_per_token(evaluated, summary, boot):
    assert summary.preference == preference(evaluated.pairs.margins, boot)
    assert summary.preference_per_token == preference(evaluated.pairs.margins_per_token, boot)
    assert summary.preference.right != summary.preference_per_token.right  # or the test would tell nothing
    assert summary.margin.value == pytest.approx(evaluated.pairs.margins.mean())


@pytest.mark.parametrize(
    ("text", "same"), [("a cat", True), (" a  cat\n", True), ("A cat", False), ("a cat.", False), ("acat", False)]
)
def test_an_answer_is_the_same_but_for_white_space(text, same):
    assert same_answer(text, "a cat") is same


def test_without_answers_topics_or_flaws_there_are_none(tiny_model, an_adapter, options, boot):
    split = EvaluationSplit([SftExample("a", "b"), SftExample("c", "d")], [PreferencePair("a", "b", "c")])
    found = summarise(evaluate_model(tiny_model, "SFT", an_adapter(1), split, options), boot)
    assert (found.exact, found.topics, found.flaws) == (None, (), ())
    assert len(found.generations) == 2


def test_generations_show_each_topic_once_before_any_twice(split, summary):
    topic_of = {example.instruction: example.topic for example in split.sft}
    assert {topic_of[shown.instruction] for shown in summary.generations} == {"birds", "fruit", "talk"}
    assert all(shown.reference for shown in summary.generations)


def test_greedy_and_sampled_generations_are_those_of_generate(tiny_model, an_adapter, options, summary):
    tiny_model.load(an_adapter(1))
    instructions = [shown.instruction for shown in summary.generations]
    assert [shown.greedy for shown in summary.generations] == generate(tiny_model, instructions, options.gen_tokens, 1)


def test_progress_rises_to_the_end(tiny_model, an_adapter, split, options):
    seen = []
    evaluate_model(tiny_model, "SFT", an_adapter(1), split, options, lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert {(9, 37), (9 + 16, 37), (9 + 16 + 6, 37)} <= set(seen), "the end of each pass; a pair counts as two"
    assert seen[-1] == (37, 37)


def test_what_was_cut_is_counted(tiny_model, an_adapter, options):
    split = EvaluationSplit([SftExample("x " * 500, "b"), SftExample("a", "b")], [PreferencePair("a", "b " * 500, "c")])
    assert evaluate_model(tiny_model, "SFT", an_adapter(1), split, options).truncated == 2


def test_the_same_again_is_the_same(tiny_model, an_adapter, split, options, boot, summary):
    again = summarise(evaluate_model(tiny_model, "SFT", an_adapter(1), split, options), boot)
    assert again == summary
    assert ModelEvaluation.model_validate_json(again.model_dump_json()) == summary


@given(st.lists(st.integers(), max_size=30), st.integers(0, 40), st.integers(0, 5))
def test_a_subset_has_its_size_and_order(items, count, seed):
    items = list(enumerate(items))
    chosen = subset(items, count, seed)
    assert len(chosen) == (min(count, len(items)) or len(items))
    assert chosen == sorted(chosen)
    assert set(chosen) <= set(items)
    assert chosen == subset(items, count, seed)
