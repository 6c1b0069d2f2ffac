"""Client selection: who is asked in a round."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

from fccl.specs import RoundPlan, named_seed


def select_clients(
    plan: RoundPlan, round_number: int, without: Collection[int] = (), members: Sequence[int] | None = None
) -> tuple[int, ...]:
    """The clients of one round, drawn without replacement from the plan's seed, in client order; nobody of `without`.

    `members` are those of an open federation at the time; there a round that takes all clients of the start takes all
    members. Where fewer are left than a round has clients, all of them are drawn.
    """
    draw = random.Random(named_seed(plan.seed, "clients", round_number))
    everybody = range(plan.num_clients) if members is None else members
    able = [client for client in everybody if client not in without]
    takes_all = members is not None and plan.clients_per_round == plan.num_clients
    return tuple(sorted(draw.sample(able, len(able) if takes_all else min(len(able), plan.clients_per_round))))
