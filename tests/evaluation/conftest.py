"""A small test split and adapters to evaluate on the tiny model."""

from __future__ import annotations

import pytest
import torch

from fccl.adapters.adapter import Adapter
from fccl.data.examples import PreferencePair, SftExample
from fccl.evaluation.bootstrap import Bootstrap
from fccl.evaluation.suite import EvaluationSplit
from fccl.model.encoding import encode
from fccl.model.objectives import objective_for
from fccl.records.evaluation import EvaluationOptions
from fccl.specs import TrainSpec
from fccl.training.loop import train
from fccl.training.objective import ObjectiveUnderModel


@pytest.fixture(scope="session")
def an_adapter(tiny_model):
    """Adapters by seed; neither factor is zero."""

    def build(seed, scale=0.2):
        draw = torch.Generator().manual_seed(seed)
        return Adapter(
            {
                name: scale * torch.randn(parameter.shape, generator=draw)
                for name, parameter in tiny_model.factors.items()
            }
        )

    return build


@pytest.fixture(scope="session")
def taught(tiny_model):
    """Four examples and an adapter that has learnt them by heart, end-of-text included."""
    examples = [
        SftExample(f"Say {word}", f"It is {answer}.")
        for word, answer in (("a", "hot"), ("b", "red and old"), ("c", "a tree"), ("d", "cold"))
    ]
    rows = encode(tiny_model.tokenizer, "sft", examples, tiny_model.spec.max_length)
    tiny_model.load(tiny_model.initial_adapter(0))
    spec = TrainSpec(epochs=150, learning_rate=0.02, batch_size=4, warmup=0.0, max_grad_norm=1.0)
    train(tiny_model.factors, ObjectiveUnderModel(tiny_model, objective_for("sft", rows)), spec, seed=0)
    return examples, tiny_model.adapter()


@pytest.fixture(scope="session")
def split():
    """Nine instructions of three topics, six with an answer; eight pairs of two flaws, one of them a tie."""
    sft = [
        SftExample(
            f"Say {word} {number}",
            f"{word} and {word}",
            topic=topic,
            answer=f"{word} and {word}" if topic != "talk" else "",
        )
        for topic, word in (("birds", "bird"), ("fruit", "apple"), ("talk", "I do not know"))
        for number in range(3)
    ]
    va = [
        PreferencePair(f"Say {n}", "It is " + "red " * n, "Go away. " * (1 + n % 3), flaw="rude" if n % 2 else "wrong")
        for n in range(7)
    ]
    return EvaluationSplit(sft, [*va, PreferencePair("Say it", "the same", "the same", flaw="wrong")])


@pytest.fixture(scope="session")
def options():
    return EvaluationOptions(
        gen_samples=3, gen_tokens=6, gen_temperature=0.8, bootstrap_samples=200, batch_size=4, seed=1
    )


@pytest.fixture(scope="session")
def boot():
    return Bootstrap(samples=200, seed=1)
