"""The scenarios: how the data is dealt, who is bad, and what the bad ones do.

Scenarios of the same `alpha` and `size_skew` deal the same shards to the same clients from the same seed. The bad
clients of a seed are the same in all scenarios, so scenarios too can be compared pair by pair.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from fccl.compare.values import Attack
from fccl.specs import DataSpec, NoiseKind, Phase, named_seed

BAD_OF_EIGHT = 3
# Dirichlet concentration of the scenarios with bad clients: alike enough to learn from each other, and not the same
MIXED = 0.3


@dataclass(frozen=True)
class Scenario:
    """One situation. `noise` spoils the data of the bad clients, `attack` what they send.

    Without either there are none.
    """

    name: str
    title: str
    phase: Phase = "sft"
    alpha: float | None = MIXED  # None: IID
    size_skew: float = 1.0
    noise: NoiseKind | None = None
    attack: Attack = "none"
    collude: bool = False  # one of the bad clients sends absurd numbers, so that the attack of the others counts

    @property
    def has_bad_clients(self) -> bool:
        return self.noise is not None or self.attack != "none"

    def bad_clients(self, num_clients: int, seed: int) -> tuple[int, ...]:
        """Three clients of eight, at least one, never all: drawn from the seed. In client order."""
        if not self.has_bad_clients:
            return ()
        count = bad_count(num_clients)
        return tuple(sorted(random.Random(named_seed(seed, "bad clients")).sample(range(num_clients), count)))

    def attack_of(self, client_id: int, bad: tuple[int, ...]) -> Attack:
        """The attack of one client.

        Every second free rider adds noise; of colluders the first sacrifices itself for the others.
        """
        if client_id not in bad:
            return "none"
        if self.collude and client_id == bad[0]:
            return "sacrifice"
        return "free_rider_noise" if self.attack == "free_rider" and bad.index(client_id) % 2 else self.attack

    def data_spec(self, base: DataSpec, seed: int, spoilt: bool = True) -> DataSpec:
        """The data of one seed. With `spoilt` false as it was before the bad clients' data was spoilt."""
        split = base.partition.model_copy(update={"alpha": self.alpha, "size_skew": self.size_skew, "seed": seed})
        bad = self.bad_clients(split.num_clients, seed) if self.noise and spoilt else ()
        noise = (
            {"noisy_clients": bad, "noise_kind": self.noise} if bad else {"noisy_clients": (), "noise_kind": "shuffled"}
        )
        return base.model_copy(update={"partition": split, **noise})


def bad_count(num_clients: int) -> int:
    """The number of bad clients among so many."""
    return max(1, num_clients * BAD_OF_EIGHT // 8)


_ALL = (
    Scenario("clean-iid", "clean, IID", alpha=None),
    Scenario("clean-non-iid", "clean, non-IID (Dirichlet 0.1)", alpha=0.1),
    Scenario("sizes", "clean, sizes 1:20", alpha=None, size_skew=20.0),
    Scenario("shuffled", "shuffled answers", noise="shuffled"),
    Scenario("duplicated", "duplicated data (every row four times)", noise="duplicated"),
    Scenario(
        "loss-forgers", "loss forgers (shuffled answers, tiny loss reported)", noise="shuffled", attack="loss_forger"
    ),
    Scenario("free-riders", "free riders", attack="free_rider"),
    Scenario("sign-flip", "sign-flipped updates", attack="sign_flip"),
    Scenario("scaling", "updates scaled by ten", attack="scaling"),
    Scenario(
        "colluders", "colluders (one absurd, the others flipped three times as far)", attack="reversal", collude=True
    ),
    Scenario("clean-va", "preferences, clean", phase="va"),
    Scenario("flipped", "preferences, flipped", phase="va", noise="flipped"),
    Scenario("scaling-va", "preferences, updates scaled by ten", phase="va", attack="scaling"),
    Scenario("colluders-va", "preferences, colluders", phase="va", attack="reversal", collude=True),
)
SCENARIOS: Mapping[str, Scenario] = {scenario.name: scenario for scenario in _ALL}
QUICK = ("clean-non-iid", "shuffled", "loss-forgers", "sign-flip", "flipped")
