"""Each client's own update against the global model: whom does the federation serve?

A client can be better off alone on its own kind of data and worse off on everything else. So both are measured: the
whole test split, and the test examples weighted as the client's topics are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from fccl.evaluation.bootstrap import Bootstrap, Floats
from fccl.evaluation.comparison import difference, perplexity_ratio
from fccl.evaluation.preference import preference
from fccl.evaluation.suite import Evaluated
from fccl.records.evaluation import ClientMix, Difference, Estimate, UpdateEvaluation
from fccl.specs import Phase

Shares = Mapping[str, float]  # topic -> its share, or count, in a client's SFT data


def topic_weights(topics: Sequence[str], shares: Shares) -> Floats:
    """A weight per example (n,): each topic's examples share the topic's part of the client's data.

    Zero where the client has no such topic.
    """
    total, counts = sum(shares.values()), Counter(topics)
    return np.array([shares.get(topic, 0.0) / total / counts[topic] for topic in topics], dtype=np.float64)


def evaluate_client(
    client_id: int, phase: Phase, own: Evaluated, everyone: Evaluated, shares: Shares, boot: Bootstrap
) -> UpdateEvaluation:
    """A client's own last update, and on its mix of topics the global model (`everyone`) beside it."""
    return UpdateEvaluation(
        client_id=client_id,
        phase=phase,
        perplexity=boot.perplexity(own.sft.nll, own.sft.tokens),
        preference=preference(own.pairs.margins, boot),
        exact=boot.mean(own.exact) if len(own.exact) else None,
        mix=_mix(own, everyone, shares, boot),
    )


def _mix(own: Evaluated, everyone: Evaluated, shares: Shares, boot: Bootstrap) -> ClientMix | None:
    """None when the test split has none of the client's topics, or they are not known."""
    weights = (
        topic_weights([example.topic for example in own.split.sft], shares) if any(shares.values()) else np.zeros(0)
    )
    used = weights > 0
    if not used.any():
        return None
    covered, weights = float(weights.sum()), weights[used]
    tokens, own_nll, global_nll = (
        own.sft.tokens[used] * weights,
        own.sft.nll[used] * weights,
        everyone.sft.nll[used] * weights,
    )
    own_exact, global_exact, change = _exact(own, everyone, shares, boot)
    return ClientMix(
        covered=min(1.0, covered),
        own_perplexity=boot.perplexity(own_nll, tokens),
        global_perplexity=boot.perplexity(global_nll, tokens),
        own_exact=own_exact,
        global_exact=global_exact,
        differences=(perplexity_ratio(own_nll, global_nll, tokens, boot), *change),
    )


def _exact(
    own: Evaluated, everyone: Evaluated, shares: Shares, boot: Bootstrap
) -> tuple[Estimate | None, Estimate | None, list[Difference]]:
    """Exact answers on the client's mix: its own, the global model's, their difference.

    Weighted over the examples that have an answer.
    """
    weights = topic_weights([own.split.sft[index].topic for index in own.split.answered], shares)
    used = weights > 0
    if not used.any():
        return None, None, []
    weights = weights[used]
    mine, theirs = own.exact[used] * weights, everyone.exact[used] * weights
    change = difference("exact answers", "points", boot.ratio(theirs - mine, weights))
    return boot.ratio(mine, weights), boot.ratio(theirs, weights), [change]
