"""The results of an evaluation, as values: `logs/evaluation.json`, both ways. Imports no torch, so a reader of the file
needs none.

Conventions. Every interval is a 95 % percentile bootstrap over examples. Accuracies and shares lie in [0, 1]; NLL and
margins are in nats. A preference tie (a margin within float noise of 0) is neither right nor wrong: accuracy is right /
(right + wrong), and ties are counted apart.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fccl.display.words import plural
from fccl.specs import BasePrecision, Phase, Value

Verdict = Literal["better", "worse", "no significant difference", "too few examples"]
# Of five pairs, all five differ in one direction by chance in one case of 16: no set of fewer than six can be
# significant at 5 %.
FEWEST_FOR_A_VERDICT = 6


class EvaluationOptions(Value):
    """The settings of an evaluation. `max_sft` and `max_va` of 0 take the whole test split."""

    max_sft: int = Field(default=0, ge=0)
    max_va: int = Field(default=0, ge=0)
    gen_samples: int = Field(ge=0)
    gen_tokens: int = Field(ge=1)
    gen_temperature: float = Field(gt=0)
    bootstrap_samples: int = Field(ge=100)
    batch_size: int = Field(ge=1)  # sequences in a forward pass
    seed: int = Field(ge=0)
    skip_base: bool = False
    per_client: tuple[int, ...] = ()  # clients whose own last update is evaluated too


class Estimate(Value):
    """A number over n examples with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int = Field(ge=1)


class PreferenceResult(Value):
    """The counts of pairs by which response is the likelier one. `accuracy` is None when every pair is a tie."""

    accuracy: Estimate | None
    right: int = Field(ge=0)
    wrong: int = Field(ge=0)
    ties: int = Field(ge=0)


class TopicResult(Value):
    """The examples of one topic."""

    topic: str
    perplexity: Estimate
    exact: Estimate | None


class FlawResult(Value):
    """The pairs whose rejected response has one flaw; by sum of log-probabilities."""

    flaw: str
    preference: PreferenceResult


class Generation(Value):
    """The model's answers to one test instruction, beside the reference answer."""

    instruction: str
    reference: str
    greedy: str
    sampled: str


class ModelEvaluation(Value):
    """One model (the base, or the base with one adapter) on the test split."""

    name: str
    adapter_sha256: str | None  # None: the base model
    perplexity: Estimate  # exp of `nll`
    nll: Estimate  # nats per response token
    tokens: int = Field(ge=1)  # response tokens that these two are over
    preference: PreferenceResult  # by log p(response), the sum over its tokens
    preference_per_token: PreferenceResult  # by the mean over its tokens
    margin: Estimate  # mean of log p(chosen) - log p(rejected)
    exact: Estimate | None  # share of greedy answers equal to `answer`; None where no example has one
    topics: tuple[TopicResult, ...] = ()
    flaws: tuple[FlawResult, ...] = ()
    generations: tuple[Generation, ...] = ()


class Difference(Value):
    """One measure of two models on the same examples: second minus first, or for perplexities second divided by
    first."""

    measure: str
    kind: Literal["ratio", "points", "nats", "number"]
    estimate: Estimate
    verdict: Verdict  # of the second


class ModelPair(Value):
    """Two models on the same examples."""

    first: str
    second: str
    differences: tuple[Difference, ...]


class ClientMix(Value):
    """A client's own update and the global model on the test examples, weighted as the client's topics are.

    Each topic's examples share the weight that the topic has in the client's data; `covered` is the share of the
    client's data whose topics the test split has.
    """

    covered: float = Field(gt=0, le=1)
    own_perplexity: Estimate
    global_perplexity: Estimate
    own_exact: Estimate | None
    global_exact: Estimate | None
    differences: tuple[Difference, ...]  # of the global model against the client's own


class UpdateEvaluation(Value):
    """A client's own last update on the whole test split, and on its own mix of topics where that is known."""

    client_id: int = Field(ge=0)
    phase: Phase  # of that update
    perplexity: Estimate
    preference: PreferenceResult
    exact: Estimate | None
    mix: ClientMix | None


class TaskResult(Value):
    """One measure of a task of others: every model's figure, and every two models compared on the same examples."""

    task: str
    version: str
    shots: int = Field(ge=0)  # examples in the prompt
    measure: str  # as the task calls it
    higher_is_better: bool
    estimates: tuple[Estimate, ...]  # in the order of the report's models
    differences: tuple[Difference, ...]  # in the order of its comparisons


class EvaluationReport(Value):
    """The whole evaluation: every model in order, every two of them compared."""

    model: str
    base_precision: BasePrecision = "fp32"  # that the run was trained with, and this was computed with
    sft_examples: int = Field(ge=1)
    va_pairs: int = Field(ge=1)
    truncated: int = Field(ge=0)  # examples and pairs of these that were cut to fit the context
    options: EvaluationOptions
    models: tuple[ModelEvaluation, ...] = Field(min_length=1)
    comparisons: tuple[ModelPair, ...] = ()
    clients: tuple[UpdateEvaluation, ...] = ()
    tasks: tuple[TaskResult, ...] = ()

    def __repr__(self) -> str:
        """The perplexities: what a notebook shows of it."""
        models = ", ".join(f"{model.name} {model.perplexity.value:.2f}" for model in self.models)
        sizes = f"{plural(self.sft_examples, 'instruction')}, {plural(self.va_pairs, 'pair')}"
        return f"<EvaluationReport of {self.model}: perplexity {models}; {sizes}>"


def verdict(estimate: Estimate, neutral: float, higher_is_better: bool) -> Verdict:
    """The verdict of a paired difference on the second model: significant when the interval leaves out `neutral`."""
    if estimate.n < FEWEST_FOR_A_VERDICT:
        return "too few examples"
    if estimate.low <= neutral <= estimate.high:
        return "no significant difference"
    return "better" if (estimate.low > neutral) == higher_is_better else "worse"
