"""The methods: each is what a person would set to run it, and who takes part.

`settings` make it the method that it is; `reads` names those that are taken as the person has set them. A method sees
of a scenario only what the server would see; the oracle alone knows who is bad.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fccl.compare.scenarios import bad_count
from fccl.compare.values import Way
from fccl.records.comparison import FEDAVG, ORACLE

MethodSettings = Mapping[str, str | int | float]

_MEAN: MethodSettings = {"contribution_mode": "fedavg", "aggregation": "fedavg"}
_REPORTED = ("contribution_temperature", "contribution_normalize")
_TILTED = ("verify_examples", "verify_temperature", "verify_prior")
_ADAPTIVE = ("server_lr", "server_momentum", "server_beta2", "server_tau")


@dataclass(frozen=True)
class Method:
    """One way from shards to a model. `believes_losses`: whether a reported training loss changes anything."""

    name: str
    title: str
    way: Way = "federated"
    settings: MethodSettings = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    believes_losses: bool = False
    tolerates: str = ""  # the setting that says how many bad clients a robust rule is built for
    needs: tuple[int, int] = (2, 1)  # of f bad clients it takes at least so many times f, and so many more
    without_bad: bool = False
    # only where somebody is so far out that the bound leaves it out, else it is the method that it is without one of
    without_bound: bool = False

    def settings_for(self, num_clients: int) -> dict[str, str | int | float]:
        """Its settings among so many clients.

        A robust rule is built for as many bad clients as there are, or as many as it can stand.
        """
        if not self.tolerates:
            return dict(self.settings)
        times, more = self.needs
        return {**self.settings, self.tolerates: max(0, min(bad_count(num_clients), (num_clients - more) // times))}


def _fccl(source: str, title: str, *reads: str, believes: bool = False, aggregation: str = "fedavg") -> Method:
    settings = {"contribution_mode": "cognitive", "contribution_source": source, "aggregation": aggregation}
    name = source if aggregation == "fedavg" else f"{source}_{aggregation}"
    return Method(name.replace("_", "-"), title, settings=settings, reads=reads, believes_losses=believes)


def _peer(name: str, title: str, *reads: str, tolerates: str = "", needs: tuple[int, int] = (2, 1)) -> Method:
    """Another `AGGREGATION`, with FedAvg's weights where it takes weights."""
    settings = {**_MEAN, "aggregation": name}
    return Method(name.replace("_", "-"), title, settings=settings, reads=reads, tolerates=tolerates, needs=needs)


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
    Method(FEDAVG, "FedAvg", settings=_MEAN),
    _peer("fedprox", "FedProx", "prox_mu"),
    _peer("scaffold", "SCAFFOLD"),
    _peer("fedavgm", "FedAvgM", "server_lr", "server_momentum"),
    _peer("fedadagrad", "FedAdagrad", "server_lr", "server_momentum", "server_tau"),
    _peer("fedyogi", "FedYogi", *_ADAPTIVE),
    _peer("fedadam", "FedAdam", *_ADAPTIVE),
    _fccl("data_size", "FCCL, samples", *_REPORTED),
    _fccl("loss_inverse", "FCCL, 1/loss", *_REPORTED, believes=True),
    _fccl("data_loss_combined", "FCCL, samples/loss", *_REPORTED, believes=True),
    _fccl("validation_loss", "FCCL, validation loss", *_REPORTED, "verify_examples"),
    _fccl("leave_one_out", "FCCL, leave one out", *_TILTED),
    _fccl("verified", "FCCL, verified", *_TILTED, "verify_steps"),
    _fccl("verified", "FCCL, verified, with SCAFFOLD", *_TILTED, "verify_steps", aggregation="scaffold"),
    _peer("median", "coordinate median"),
    _peer("trimmed_mean", "trimmed mean", tolerates="max_bad_clients", needs=(2, 1)),
    _peer("krum", "Krum", tolerates="max_bad_clients", needs=(2, 3)),
    _peer("multi_krum", "multi-Krum", "krum_keep", tolerates="max_bad_clients", needs=(2, 3)),
    _peer("geometric_median", "geometric median"),
    _peer("norm_clipping", "norm clipping", "clip_norm"),
    Method(ORACLE, "oracle (no bad clients)", settings=_MEAN, without_bad=True),
)
_ROBUST = ("median", "trimmed-mean", "krum", "multi-krum", "geometric-median", "norm-clipping")
_ALL = (*_BOUNDED, *(_unbounded(method) for method in _BOUNDED if method.name in (FEDAVG, "verified", *_ROBUST)))
METHODS: Mapping[str, Method] = {method.name: method for method in _ALL}
QUICK = ("base", FEDAVG, "loss-inverse", "verified", "trimmed-mean", "multi-krum", ORACLE)
DECIDED_HERE = frozenset(
    {"contribution_mode", "contribution_source", "aggregation", "max_bad_clients", "max_update_ratio"}
)  # no person sets them
