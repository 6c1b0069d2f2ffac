"""One model on the test split: perplexity, preferences, exact answers, generations."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from fccl.adapters.adapter import Adapter
from fccl.data.examples import PreferencePair, SftExample
from fccl.evaluation.bootstrap import Bootstrap, Floats
from fccl.evaluation.preference import preference
from fccl.model.encoding import encode_pairs, encode_sft
from fccl.model.generate import Sampling, generate
from fccl.model.language_model import LanguageModel, cpu_threads
from fccl.model.scoring import PairScores, Progress, SftScores, no_progress, score_pairs, score_sft
from fccl.model.tokens import token_ids
from fccl.records.evaluation import EvaluationOptions, FlawResult, Generation, ModelEvaluation, TopicResult
from fccl.specs import named_seed

SPARE_TOKENS = 4  # an answer may be spelt in a few more tokens than the reference, and must still have room to end

Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class EvaluationSplit:
    """The test examples."""

    sft: Sequence[SftExample]
    va: Sequence[PreferencePair]

    @property
    def answered(self) -> list[int]:
        """The indices of the instructions that have an `answer` to compare with."""
        return [index for index, example in enumerate(self.sft) if example.answer.strip()]


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A model's numbers of every example. `exact` (m,) runs over `split.answered`: 1 right, 0 wrong."""

    name: str
    adapter: Adapter | None
    split: EvaluationSplit
    sft: SftScores
    pairs: PairScores
    exact: Floats
    generations: tuple[Generation, ...]
    truncated: int  # examples and pairs that were cut to fit the context


@dataclass(frozen=True, eq=False)
class ToEvaluate:
    """A model to evaluate: the base model under an adapter, or alone where that is None."""

    name: str
    adapter: Adapter | None
    options: EvaluationOptions


Listen = Callable[[str], Progress]  # from a model's name to its progress
Evaluate = Callable[[Sequence[ToEvaluate], EvaluationSplit, Listen], list[Evaluated]]  # in the order of the subjects


def one_by_one(model: LanguageModel, threads: int = 0) -> Evaluate:
    """Evaluates subjects in this process, with so many threads; 0 leaves their number alone."""

    def evaluate(subjects: Sequence[ToEvaluate], split: EvaluationSplit, listen: Listen) -> list[Evaluated]:
        with cpu_threads(threads):
            return [
                evaluate_model(model, each.name, each.adapter, split, each.options, listen(each.name))
                for each in subjects
            ]

    return evaluate


def evaluate_model(
    model: LanguageModel,
    name: str,
    adapter: Adapter | None,
    split: EvaluationSplit,
    options: EvaluationOptions,
    on_progress: Progress = no_progress,
) -> Evaluated:
    """Everything that needs the model. `adapter` None is the base model. Leaves the adapter loaded.

    `on_progress` counts sequences: those scored, and those generated. Raises `AdapterError`.
    """
    shown = _shown(split.sft, options)
    stages = _Stages(on_progress, total=len(split.sft) + 2 * len(split.va) + len(split.answered) + 2 * len(shown))
    model.load(
        adapter or model.initial_adapter(seed=0)
    )  # B is zero in an initial adapter, so that is the base model exactly
    form = model.spec.max_length, model.spec.text
    rows, pairs = encode_sft(model.tokenizer, split.sft, *form), encode_pairs(model.tokenizer, split.va, *form)
    return Evaluated(
        name=name,
        adapter=adapter,
        split=split,
        sft=score_sft(model, rows, options.batch_size, stages.next(len(rows))),
        pairs=score_pairs(model, pairs, options.batch_size, stages.next(len(pairs), each=2)),
        exact=_exact_answers(
            model, [split.sft[index] for index in split.answered], options, stages.next(len(split.answered))
        ),
        generations=_generations(model, shown, options, stages),
        truncated=sum(row.truncated for row in rows)
        + sum(chosen.truncated or rejected.truncated for chosen, rejected in pairs),
    )


def summarise(one: Evaluated, boot: Bootstrap) -> ModelEvaluation:
    """A model's measures with their intervals."""
    return ModelEvaluation(
        name=one.name,
        adapter_sha256=one.adapter.sha256 if one.adapter else None,
        perplexity=boot.perplexity(one.sft.nll, one.sft.tokens),
        nll=boot.ratio(one.sft.nll, one.sft.tokens),
        tokens=int(one.sft.tokens.sum()),
        preference=preference(one.pairs.margins, boot),
        preference_per_token=preference(one.pairs.margins_per_token, boot),
        margin=boot.mean(one.pairs.margins),
        exact=boot.mean(one.exact) if len(one.exact) else None,
        topics=_by_topic(one, boot),
        flaws=_by_flaw(one, boot),
        generations=one.generations,
    )


def subset(items: Sequence[Item], count: int, seed: int) -> list[Item]:
    """`count` of the items, drawn from a named seed, in their own order; all of them when `count` is 0 or not fewer."""
    if not 0 < count < len(items):
        return list(items)
    draw = random.Random(named_seed(seed, "evaluation-subset"))
    return [items[index] for index in sorted(draw.sample(range(len(items)), count))]


def same_answer(text: str, answer: str) -> bool:
    """Equal but for white space."""
    return text.split() == answer.split()


def _by_topic(one: Evaluated, boot: Bootstrap) -> tuple[TopicResult, ...]:
    exact = dict(zip(one.split.answered, one.exact, strict=True))
    results = []
    for topic, indices in _groups([example.topic for example in one.split.sft]).items():
        answers = [exact[index] for index in indices if index in exact]
        perplexity = boot.perplexity(one.sft.nll[indices], one.sft.tokens[indices])
        results.append(TopicResult(topic=topic, perplexity=perplexity, exact=boot.mean(answers) if answers else None))
    return tuple(results)


def _by_flaw(one: Evaluated, boot: Bootstrap) -> tuple[FlawResult, ...]:
    flaws = _groups([pair.flaw for pair in one.split.va])
    return tuple(
        FlawResult(flaw=flaw, preference=preference(one.pairs.margins[indices], boot))
        for flaw, indices in flaws.items()
    )


def _groups(labels: Sequence[str]) -> Mapping[str, list[int]]:
    """The indices of each label, labels sorted; nothing when no example has one."""
    found = sorted(set(labels))
    return (
        {label: [index for index, mine in enumerate(labels) if mine == label] for label in found} if any(found) else {}
    )


def _exact_answers(
    model: LanguageModel, examples: Sequence[SftExample], options: EvaluationOptions, on_batch: Progress
) -> Floats:
    """Whether the greedy response is the answer: (m,).

    It may be as long as the longest answer needs, whatever `gen_tokens` says.
    """
    if not examples:
        return np.zeros(0)
    longest = max(map(len, token_ids(model.tokenizer, [" " + example.answer for example in examples])))
    texts = generate(
        model,
        examples,
        longest + SPARE_TOKENS,
        options.batch_size,
        on_batch=on_batch,
    )
    return np.array(
        [same_answer(text, example.answer) for text, example in zip(texts, examples, strict=True)], dtype=np.float64
    )


def _shown(examples: Sequence[SftExample], options: EvaluationOptions) -> list[SftExample]:
    """The instructions whose generations are shown: a seeded draw that takes every topic once before it takes one
    twice.
    """
    drawn = random.Random(named_seed(options.seed, "shown")).sample(list(examples), len(examples))
    taken: Counter[str] = Counter()
    turns = []
    for example in drawn:
        turns.append(taken[example.topic])
        taken[example.topic] += 1
    order = sorted(range(len(drawn)), key=lambda index: turns[index])
    return [drawn[index] for index in order[: options.gen_samples]]


def _generations(
    model: LanguageModel, examples: Sequence[SftExample], options: EvaluationOptions, stages: _Stages
) -> tuple[Generation, ...]:
    if not examples:
        return ()
    size = options.gen_tokens, options.batch_size
    sampling = Sampling(options.gen_temperature, options.seed)
    greedy = generate(model, examples, *size, on_batch=stages.next(len(examples)))
    sampled = generate(model, examples, *size, sampling, on_batch=stages.next(len(examples)))
    return tuple(
        Generation(instruction=example.instruction, reference=example.response, greedy=first, sampled=second)
        for example, first, second in zip(examples, greedy, sampled, strict=True)
    )


class _Stages:
    """Several passes, one after the other, as one account of progress."""

    def __init__(self, report: Progress, total: int) -> None:
        self.report, self.total, self.before = report, total, 0

    def next(self, size: int, each: int = 1) -> Progress:
        """The listener of the next pass, over `size` items that count `each`."""
        before = self.before
        self.before += size * each
        return lambda done, _: self.report(before + done * each, self.total)
