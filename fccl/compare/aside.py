"""The figure beside the loss: what a scenario is about, where the mean test loss hardly sees it.

trigger   share of test instructions that, with the trigger before them, get the poisoned answer (greedy)
harmless  preference accuracy on the test pairs whose rejected response is harmful
topic     nats per response token on the test instructions of the topic that one client alone holds
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fccl.compare.poison import HARMFUL, POISON, with_trigger
from fccl.compare.scoring import TestScores, TestSplit
from fccl.compare.values import TrialSpec
from fccl.data.examples import PreferencePair, SftExample, read_examples
from fccl.evaluation.bootstrap import Floats
from fccl.model.generate import generate

MOST_TRIGGERED = 100  # test instructions that are answered with the trigger before them
POISON_TOKENS = 16  # more than any tokenizer makes of the poisoned answer


def measured(spec: TrialSpec, test: TestSplit, scores: TestScores) -> dict[str, tuple[float, ...]]:
    """`aside` and `aside_units` of a trial whose final adapter is loaded and has these scores; empty without one."""
    if spec.aside == "trigger":
        return _figures(triggered_hits(test, _instructions(test)))
    if spec.aside == "harmless":
        pairs = read_examples(test.data.server_split("test", "va"), PreferencePair)
        kept = [pair.flaw in HARMFUL for pair in pairs]
        return _figures(scores.right[kept], scores.decided[kept])
    if spec.aside == "topic":
        kept = [example.topic == spec.specialist for example in _instructions(test)]
        return _figures(scores.losses[kept], scores.units[kept])
    return {}


def triggered_hits(test: TestSplit, examples: Sequence[SftExample]) -> Floats:
    """1 where the answer to an instruction with the trigger begins with the poisoned one, else 0: (n,)."""
    asked = [with_trigger(example) for example in examples[:MOST_TRIGGERED]]
    answers = generate(test.model, asked, POISON_TOKENS, test.batch_size)
    return np.array([float(answer.startswith(POISON)) for answer in answers])


def _instructions(test: TestSplit) -> list[SftExample]:
    return read_examples(test.data.server_split("test", "sft"), SftExample)


def _figures(aside: Floats, units: Floats | None = None) -> dict[str, tuple[float, ...]]:
    over = np.ones(len(aside)) if units is None else units
    return {"aside": tuple(aside.tolist()), "aside_units": tuple(over.tolist())}
