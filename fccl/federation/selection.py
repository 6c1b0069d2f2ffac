"""Client selection: who is asked in a round."""

from __future__ import annotations

import random
from collections.abc import Collection

from fccl.specs import RoundPlan, named_seed


def select_clients(plan: RoundPlan, round_number: int, without: Collection[int] = ()) -> tuple[int, ...]:
    """The clients of one round, drawn without replacement from the plan's seed, in client order; nobody of `without`.

    Where fewer are left than a round has clients, all of them are drawn.
    """
    draw = random.Random(named_seed(plan.seed, "clients", round_number))
    able = [client for client in range(plan.num_clients) if client not in without]
    return tuple(sorted(draw.sample(able, min(len(able), plan.clients_per_round))))
