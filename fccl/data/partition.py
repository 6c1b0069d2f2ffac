"""The training split, dealt to the clients: Dirichlet over clients for each topic, and sizes that may differ."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fccl.data.examples import Example, PreferencePair, SftExample
from fccl.data.shards import ClientShard
from fccl.display.words import plural
from fccl.errors import DataError
from fccl.specs import PartitionSpec, Phase, named_seed

if TYPE_CHECKING:
    import numpy as np

_TINY = 1e-300  # keeps a Dirichlet parameter above zero, so that its logarithms stay finite


def partition(sft: Sequence[SftExample], va: Sequence[PreferencePair], spec: PartitionSpec) -> tuple[ClientShard, ...]:
    """One shard a client: disjoint, their union is exactly what came in, and everybody has an example of each kind.

    A topic's examples go to the K clients in shares q ~ Dirichlet(alpha · K · s), with s the clients' sizes (Hsu, Qi
    and Brown 2019). q is drawn once for a topic and used for both kinds, so a client has one taste. Without alpha, q =
    s. Raises `DataError` when a kind has fewer examples than there are clients.
    """
    topics = dict.fromkeys([example.topic for example in sft] + [pair.topic for pair in va])
    shares = {topic: topic_shares(topic, spec) for topic in topics}
    dealt_sft, dealt_va = _deal(sft, shares, spec, "sft"), _deal(va, shares, spec, "va")
    return tuple(
        ClientShard(client, mine, pairs) for client, (mine, pairs) in enumerate(zip(dealt_sft, dealt_va, strict=True))
    )


def client_sizes(spec: PartitionSpec) -> np.ndarray:
    """Expected share of each client in all examples, (K,), sum 1: geometric from 1 to `size_skew`, in a seeded
    order."""
    import numpy as np

    sizes = np.exp(np.linspace(-np.log(spec.size_skew), 0.0, spec.num_clients))
    order = np.random.default_rng(named_seed(spec.seed, "sizes")).permutation(spec.num_clients)
    return np.asarray(sizes[order] / sizes.sum())


def topic_shares(topic: str, spec: PartitionSpec) -> np.ndarray:
    """Share of each client in one topic, (K,), sum 1.

    A Dirichlet draw is gamma draws over their sum. At a small parameter a the gammas all underflow, so their logarithms
    are drawn: Gamma(a) = Gamma(a + 1) · U^(1/a) in distribution (Marsaglia and Tsang 2000).
    """
    import numpy as np

    sizes = client_sizes(spec)
    if spec.alpha is None:
        return sizes
    draw = np.random.default_rng(named_seed(spec.seed, "taste", topic))
    parameters = np.maximum(spec.alpha * spec.num_clients * sizes, _TINY)
    logs = np.log(draw.gamma(parameters + 1.0)) + np.log1p(-draw.random(spec.num_clients)) / parameters
    weights = np.exp(logs - logs.max())
    return np.asarray(weights / weights.sum())


def _deal(
    examples: Sequence[Example], shares: Mapping[str, np.ndarray], spec: PartitionSpec, phase: Phase
) -> list[tuple[Example, ...]]:
    """Each client's examples, in the order in which they came."""
    import numpy as np

    if len(examples) < spec.num_clients:
        raise DataError(
            f"{len(examples)} training examples ({phase.upper()}) are too few for {plural(spec.num_clients, 'client')}",
            hint="bring more data, or set a smaller NUM_CLIENTS",
        )
    dealt: list[list[int]] = [[] for _ in range(spec.num_clients)]
    by_topic: dict[str, list[int]] = {}
    for index, example in enumerate(examples):
        by_topic.setdefault(example.topic, []).append(index)
    for topic, indices in by_topic.items():
        draw = np.random.default_rng(named_seed(spec.seed, "deal", phase, topic))
        shuffled, order = draw.permutation(indices).tolist(), draw.permutation(spec.num_clients)
        ends: list[int] = _round(np.cumsum(shares[topic][order]), len(indices))
        for client, start, end in zip(order.tolist(), [0, *ends], ends, strict=False):
            dealt[client] += shuffled[start:end]
    _give_to_the_empty(dealt)
    return [tuple(examples[index] for index in sorted(mine)) for mine in dealt]


def _round(cumulative: np.ndarray, total: int) -> list[int]:
    """Where each client's part of `total` examples ends.

    Every part is within one of its exact share, and the last end is `total`.
    """
    import numpy as np

    ends = np.floor(np.clip(cumulative, 0.0, 1.0) * total + 0.5).astype(int)
    ends[-1] = total
    return list(ends.tolist())


def _give_to_the_empty(dealt: list[list[int]]) -> None:
    """Move one example from the largest client to each that has none, in place."""
    largest = [(-len(mine), client) for client, mine in enumerate(dealt) if mine]
    heapq.heapify(largest)
    for mine in dealt:
        if not mine:
            size, client = heapq.heappop(largest)
            mine.append(dealt[client].pop())
            heapq.heappush(largest, (size + 1, client))
