"""The methods: each is what a person would set to run it, and who takes part.

`settings` make it the method that it is; `reads` names those that are taken as the person has set them: what the
registries of the rules say. A method sees of a scenario only what the server would see; the oracles alone know who is
bad, and the pooled data alone is clean where clients are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from fccl.aggregation import rules as aggregation
from fccl.compare.scenarios import bad_count
from fccl.compare.values import Way
from fccl.contribution import rules as contribution
from fccl.records.comparison import FEDAVG, ORACLE, POOLED
from fccl.registry import Registered, is_own, load
from fccl.specs import Phase

MethodSettings = Mapping[str, str | int | float]

_MEAN: MethodSettings = {"contribution_mode": "fedavg", "aggregation": "fedavg"}
DECIDED_HERE = frozenset(
    {
        "contribution_mode",
        "contribution_source",
        "aggregation",
        "learn_epochs",
        "lora_aggregation",
        "max_bad_clients",
        "max_update_ratio",
    }
)  # no person sets them
_SERVER_EPOCH: MethodSettings = {"learn_epochs": 1}


@dataclass(frozen=True)
class Method:
    """One way from shards to a model. `believes_losses`: whether a reported training loss changes anything."""

    name: str
    title: str
    way: Way = "federated"
    settings: MethodSettings = field(default_factory=dict)
    tuned: Mapping[Phase, MethodSettings] = field(default_factory=dict)  # values of its knob, chosen for a phase
    rules: tuple[Registered, ...] = ()  # that it weighs and aggregates by, beside the plain ones
    believes_losses: bool = False
    tolerates: str = ""  # the setting that says how many bad clients a robust rule is built for
    needs: tuple[int, int] = (2, 1)  # of f bad clients it takes at least so many times f, and so many more
    without_bad: bool = False
    clean: bool = False  # has the data as it was before anybody spoilt it
    server_takes_part: bool = False  # with its learn split, as one more client
    # only where somebody is so far out that the bound leaves it out, else it is the method that it is without one of
    without_bound: bool = False

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """The settings that its rules read and the method itself does not decide."""
        read = frozenset().union(*(rule.settings for rule in self.rules), {"learn_lr"} if self.server_learns else ())
        decided = set(self.settings).union(*self.tuned.values())
        return tuple(sorted(read - DECIDED_HERE - decided))

    @property
    def server_learns(self) -> bool:
        """Whether the server trains after every aggregation."""
        return "learn_epochs" in self.settings

    @property
    def uses_learn(self) -> bool:
        """Whether the server's learn split has a part in it."""
        trains = self.server_learns or self.server_takes_part or self.way == "server"
        return trains or any(rule.takes_loss for rule in self.rules)

    @property
    def own(self) -> tuple[str, ...]:
        """The classes of one's own that it uses."""
        return tuple(rule.path for rule in self.rules if is_own(self.name))

    def settings_for(self, num_clients: int, phase: Phase | None = None) -> dict[str, str | int | float]:
        """Its settings among so many clients, those that were tuned for a phase among them.

        A robust rule is built for as many bad clients as there are, or as many as it can stand.
        """
        settings = {**self.settings, **(self.tuned.get(phase, {}) if phase else {})}
        if not self.tolerates:
            return settings
        times, more = self.needs
        return {**settings, self.tolerates: max(0, min(bad_count(num_clients), (num_clients - more) // times))}


def _fccl(source: str, title: str, believes: bool = False, aggregated: str = "fedavg") -> Method:
    settings = {"contribution_mode": "cognitive", "contribution_source": source, "aggregation": aggregated}
    name = source if aggregated == "fedavg" else f"{source}_{aggregated}"
    rules = (contribution.RULES[source], aggregation.RULES[aggregated])
    return Method(name.replace("_", "-"), title, settings=settings, rules=rules, believes_losses=believes)


def _peer(name: str, title: str, tolerates: str = "", needs: tuple[int, int] = (2, 1)) -> Method:
    """Another `AGGREGATION`, with FedAvg's weights where it takes weights."""
    settings, rules = {**_MEAN, "aggregation": name}, (aggregation.RULES[name],)
    return Method(name.replace("_", "-"), title, settings=settings, rules=rules, tolerates=tolerates, needs=needs)


def _by_products(name: str, title: str) -> Method:
    """FedAvg with another `LORA_AGGREGATION`."""
    return Method(name.replace("_", "-"), title, settings={**_MEAN, "lora_aggregation": name})


def _then_server(method: Method) -> Method:
    """The same, and after every aggregation one epoch of the server on its learn split."""
    title = f"{method.title}, then the server"
    settings = {**method.settings, **_SERVER_EPOCH}
    return replace(method, name=f"{method.name}-server", title=title, settings=settings)


def own_method(path: str, known: Mapping[str, object]) -> Method:
    """Somebody's own class beside ours: an aggregation rule where it has `aggregate`, else a weighing rule.

    `known` has all settings. Raises `SettingsError` when the class cannot be had or is no rule.
    """
    if hasattr(load(path), "aggregate"):
        settings: MethodSettings = {**_MEAN, "aggregation": path}
        return Method(path, path, settings=settings, rules=(aggregation.registered(path, known),))
    settings = {"contribution_mode": "cognitive", "contribution_source": path, "aggregation": "fedavg"}
    rules = (contribution.registered(path, known),)
    return Method(path, path, settings=settings, rules=rules, believes_losses=True)


def _unbounded(method: Method) -> Method:
    """The same with `MAX_UPDATE_RATIO` off."""
    settings = {**method.settings, "max_update_ratio": 0.0}
    return replace(
        method,
        name=f"{method.name}-unbounded",
        title=f"{method.title}, without the bound",
        settings=settings,
        without_bound=True,
    )


_BOUNDED = (
    Method("base", "base, before any round", way="base"),
    Method("alone", "honest clients, each alone", way="alone"),
    Method("centralised", "centralised", way="centralised"),
    Method(POOLED, "pooled clean data", way="centralised", clean=True),
    Method("server-only", "the server's examples alone", way="server"),
    Method(FEDAVG, "FedAvg", settings=_MEAN),
    _peer("fedprox", "FedProx"),
    _peer("scaffold", "SCAFFOLD"),
    _peer("fedavgm", "FedAvgM"),
    _peer("fedadagrad", "FedAdagrad"),
    _peer("fedyogi", "FedYogi"),
    _peer("fedadam", "FedAdam"),
    _fccl("data_size", "FCCL, samples"),
    _fccl("loss_inverse", "FCCL, 1/loss", believes=True),
    _fccl("data_loss_combined", "FCCL, samples/loss", believes=True),
    _fccl("validation_loss", "FCCL, validation loss"),
    _fccl("leave_one_out", "FCCL, leave one out"),
    _fccl("shapley", "FCCL, exact Shapley"),
    _fccl("verified", "FCCL, verified"),
    _fccl("tempered", "FCCL, tempered"),
    _fccl("verified", "FCCL, verified, with SCAFFOLD", aggregated="scaffold"),
    _peer("median", "coordinate median"),
    _peer("trimmed_mean", "trimmed mean", tolerates="max_bad_clients", needs=(2, 1)),
    _peer("krum", "Krum", tolerates="max_bad_clients", needs=(2, 3)),
    _peer("multi_krum", "multi-Krum", tolerates="max_bad_clients", needs=(2, 3)),
    _peer("geometric_median", "geometric median"),
    _peer("norm_clipping", "norm clipping"),
    _peer("fedexp", "FedExP"),
    _fccl("fedawa", "FedAWA"),
    _fccl("fltrust", "FLTrust"),
    _fccl("fedlaw", "FedLAW, weights"),
    _fccl("fedlaw_gamma", "FedLAW, weights and shrinking"),
    _fccl("greedy_soup", "greedy soup"),
    _fccl("lorahub", "LoraHub's search"),
    _fccl("line_search", "FedAvg, line search"),
    _by_products("svd", "FedAvg of products, rank r (svd)"),
    _by_products("exact", "FedAvg of products, exact"),
    _by_products("nearly", "FedAvg of products, nearly (FLoRA-NA)"),
    _by_products("freeze_a", "FedAvg of B alone (freeze_a)"),
    Method(ORACLE, "oracle (no bad clients)", settings=_MEAN, without_bad=True),
    replace(_fccl("verified", "oracle with verified weights"), name="oracle-verified", without_bad=True),
)
_ROBUST = ("median", "trimmed-mean", "krum", "multi-krum", "geometric-median", "norm-clipping")
_MAIN = tuple(method for method in _BOUNDED if method.name in (FEDAVG, "verified", "tempered", *_ROBUST))
_SERVER = (
    Method("server-client", "FedAvg, the server one more client", settings=_MEAN, server_takes_part=True),
    *map(_then_server, _MAIN),
)
_ALL = (*_BOUNDED, *_SERVER, *map(_unbounded, _MAIN))
METHODS: Mapping[str, Method] = {method.name: method for method in _ALL}
QUICK = ("base", POOLED, FEDAVG, "fedavg-server", "verified", "tempered", ORACLE)


def way_of(name: str) -> Way:
    """The kind of a method, by its name: a class of one's own is a federation."""
    return METHODS[name].way if name in METHODS else "federated"
