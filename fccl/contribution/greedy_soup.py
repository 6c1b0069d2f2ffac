"""The greedy soup (Wortsman et al. 2022): clients join the plain mean one by one, in order of their own loss, while the
mean's loss on the server's examples does not rise.

Its members have equal weight, all others none. The best client alone is always a member.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fccl.contribution.combinations import Combinations, in_client_order
from fccl.contribution.protocol import LearnLoss, Weighing
from fccl.messages import ClientUpdate, FitTask

WORSE = 1.0  # nats: by how much a loss that is not finite counts as worse than the largest that is


@dataclass(frozen=True)
class GreedySoup:
    """No knob: the paper's recipe has none."""

    loss: LearnLoss

    @in_client_order
    def weigh(self, task: FitTask, updates: Sequence[ClientUpdate]) -> Weighing:
        """At most 2n - 1 forward passes for n clients. Scores are minus the clients' own losses; of equal ones the
        client with the lower number comes first. Where no client's own loss is finite all weigh the same.
        """
        mix, count = Combinations(self.loss, task, updates), len(updates)
        alone = [mix.at(soup_of([place], count)) for place in range(count)]
        order = sorted((place for place in range(count) if math.isfinite(alone[place])), key=alone.__getitem__)
        members, path = order[:1], [alone[place] for place in order[:1]]
        for place in order[1:]:
            tried = mix.at(soup_of([*members, place], count))
            if tried <= path[-1]:
                members.append(place)
                path.append(tried)
        worst = max((loss for loss in alone if math.isfinite(loss)), default=0.0) + WORSE
        scores = [-(loss if math.isfinite(loss) else worst) for loss in alone]
        return mix.weighing(soup_of(members or range(count), count), scores, path=path, taken=max(0, len(path) - 1))


def soup_of(members: Sequence[int], count: int) -> tuple[float, ...]:
    """Equal weights for the members, 0 for the others of so many.

    >>> soup_of([0, 2], 3)
    (0.5, 0.0, 0.5)
    """
    return tuple(1 / len(members) if place in members else 0.0 for place in range(count))
