"""The scenarios: how the data is dealt, who is bad, and what the bad ones do.

Scenarios of the same `alpha` and `size_skew` deal the same shards to the same clients from the same seed. The bad
clients of a seed are the same in all scenarios, so scenarios too can be compared pair by pair.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from fccl.compare.values import WHOLE, Attack, ServerView
from fccl.records.comparison import Aside
from fccl.specs import DataSpec, NoiseKind, Phase, named_seed

BAD_OF_EIGHT = 3
# Dirichlet concentration of the scenarios with bad clients: alike enough to learn from each other, and not the same
MIXED = 0.3
# The attack of every second one, where it differs.
SECOND: Mapping[Attack, Attack] = {"free_rider": "free_rider_noise", "copycat": "mirror"}


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
    bad_of_eight: int = BAD_OF_EIGHT
    honest_all: bool = False  # nobody is bad: `attack` is what some honest clients do
    present: float = 1.0  # share of the clients that take part in a round, drawn anew
    server: ServerView = WHOLE
    specialist: bool = False  # the first client alone holds a topic, and the server has no example of it
    aside: Aside = ""
    until_flat: bool = False  # as many rounds as FedAvg of the honest clients needs to stop gaining

    @property
    def has_bad_clients(self) -> bool:
        """Whether somebody does harm."""
        return not self.honest_all and self._has_others

    @property
    def _has_others(self) -> bool:
        return self.noise is not None or self.attack != "none"

    @property
    def unhurried(self) -> Scenario:
        """The same until FedAvg is flat."""
        return replace(self, name=f"{self.name}-flat", title=f"{self.title}, until flat", until_flat=True)

    def bad_clients(self, num_clients: int, seed: int) -> tuple[int, ...]:
        """Three clients of eight, or as many as the scenario says, at least one, never all: drawn from the seed.

        In client order.
        """
        return self.others(num_clients, seed) if self.has_bad_clients else ()

    def others(self, num_clients: int, seed: int) -> tuple[int, ...]:
        """The clients that `noise` and `attack` are of, harmful or not."""
        if not self._has_others:
            return ()
        count = bad_count(num_clients, self.bad_of_eight)
        return tuple(sorted(random.Random(named_seed(seed, "bad clients")).sample(range(num_clients), count)))

    def attack_of(self, client_id: int, bad: tuple[int, ...]) -> Attack:
        """The attack of one client.

        Every second free rider adds noise, every second of those who game the scores mirrors a client; of colluders the
        first sacrifices itself for the others.
        """
        if client_id not in bad:
            return "none"
        if self.collude and client_id == bad[0]:
            return "sacrifice"
        return SECOND.get(self.attack, self.attack) if bad.index(client_id) % 2 else self.attack

    def data_spec(self, base: DataSpec, seed: int, spoilt: bool = True) -> DataSpec:
        """The data of one seed. With `spoilt` false as it was before the bad clients' data was spoilt."""
        split = base.partition.model_copy(update={"alpha": self.alpha, "size_skew": self.size_skew, "seed": seed})
        bad = self.bad_clients(split.num_clients, seed) if self.noise and spoilt else ()
        noise = (
            {"noisy_clients": bad, "noise_kind": self.noise} if bad else {"noisy_clients": (), "noise_kind": "shuffled"}
        )
        return base.model_copy(update={"partition": split, **noise})


def bad_count(num_clients: int, of_eight: int = BAD_OF_EIGHT) -> int:
    """The number of bad clients among so many."""
    return max(1, num_clients * of_eight // 8)


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
    Scenario("shuffled-majority", "shuffled answers of a majority", noise="shuffled", bad_of_eight=5),
    Scenario("sign-flip-majority", "sign-flipped updates of a majority", attack="sign_flip", bad_of_eight=5),
    Scenario("little-is-enough", "A Little Is Enough", attack="little_is_enough"),
    Scenario("inner-product", "inner-product manipulation", attack="inner_product"),
    Scenario("min-max", "Min-Max", attack="min_max"),
    Scenario("hidden-flip", "sign flips behind training on public examples", attack="hidden_flip"),
    Scenario("backdoor", "a backdoor", attack="backdoor", aside="trigger"),
    Scenario("unsafe", "preferences, poisoned for harm", phase="va", attack="unsafe", aside="harmless"),
    Scenario("score-gaming", "score gaming (copies of the others' mean, one client mirrored)", attack="copycat"),
    Scenario("privacy-noise", "clean, three of eight add privacy noise", attack="dp_noise", honest_all=True),
    Scenario("come-and-go", "clean, half of the clients a round", present=0.5),
    Scenario("specialist", "clean, one client alone holds a topic", specialist=True, aside="topic"),
    *(
        Scenario(f"server-{name}", f"shuffled answers, the server has {words}", noise="shuffled", server=view)
        for name, words, view in (
            ("one-topic", "one topic", ServerView(topics=1)),
            ("two-topics", "two topics", ServerView(topics=2)),
            ("8", "8 examples", ServerView(examples=8)),
            ("16", "16 examples", ServerView(examples=16)),
            ("mislabelled", "a fifth mislabelled", ServerView(mislabelled=0.2)),
            ("elsewhere", "another source", ServerView(elsewhere=True)),
        )
    ),
)
SCENARIOS: Mapping[str, Scenario] = {scenario.name: scenario for scenario in _ALL}
QUICK = ("clean-non-iid", "shuffled", "sign-flip", "flipped", "server-two-topics")
