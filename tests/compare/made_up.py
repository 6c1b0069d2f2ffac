"""A comparison whose figures are made up, so that every kind of cell is there."""

from fccl.compare.methods import METHODS
from fccl.records.comparison import Comparison, MethodInfo, Outcome, RivalPair, ScenarioInfo
from fccl.records.evaluation import Estimate


def estimate(value, spread=0.01):
    return Estimate(value=value, low=value - spread, high=value + spread, n=100)


def row(scenario, method, loss, **more):
    return Outcome(
        scenario=scenario,
        method=method,
        seeds=2,
        loss=None if loss is None else estimate(loss),
        by_seed=(loss, loss),
        **more,
    )


PAIRS = (
    RivalPair(
        scenario="shuffled",
        method="verified",
        rival="fedavg",
        difference=estimate(-0.4),
        p=0.001,
        p_holm=0.002,
        verdict="better",
    ),
    RivalPair(scenario="shuffled", method="verified", rival="median", verdict="better"),
    RivalPair(
        scenario="flipped",
        method="verified",
        rival="fedavg",
        difference=estimate(0.0001),
        p=0.9,
        p_holm=0.9,
        verdict="cannot be told apart",
    ),
)


METHODS_SHOWN = ("base", "fedavg", "verified", "median", "oracle")
SCENARIOS = (
    ScenarioInfo(name="shuffled", title="shuffled answers", phase="sft", bad_clients=2),
    ScenarioInfo(name="flipped", title="preferences, flipped", phase="va", bad_clients=2, aside="harmless"),
)
BAD = (2, 3)
SHARES = ((0.2, 0.3, 0.1, 0.4), (0.5, 0.5, 0.0, 0.0))  # of four clients, in each of two rounds


def verified_row():
    """A row with every figure that a row may have."""
    return row(
        "shuffled",
        "verified",
        0.6,
        difference=estimate(-0.4),
        verdict="better",
        bootstrap=estimate(-0.4, 0.02),
        gap_pooled=estimate(0.5),
        gap_closed=estimate(0.8),
        area=1.25,
        tokens_until=12_000.0,
        bytes_until=3.5e6,
        validation=(1.8, 0.7),
        weights=SHARES,
        bad_weight=(0.5, 0.0),
        bad_clients=BAD,
    )


def shuffled_rows():
    """Every verdict but "not worse"; a method that broke down has no loss."""
    best = {"gap_pooled": estimate(0.6), "gap_closed": estimate(1.0, 0.0), "validation": (1.7, 0.6)}
    return (
        row("shuffled", "base", 6.0, difference=estimate(5.0), verdict="worse"),
        row("shuffled", "fedavg", 1.0, validation=(2.0, 1.1), weights=SHARES, bad_weight=(0.5, 0.5), bad_clients=BAD),
        verified_row(),
        row("shuffled", "median", None, verdict="worse", trouble=("seed 1: ended early: round 2 has 0 good updates",)),
        row("shuffled", "oracle", 0.5, difference=estimate(-0.5), verdict="better", **best),
    )


def flipped_rows():
    """Preferences: rows with an accuracy, and a share aside."""
    almost = {"difference": estimate(0.0001), "verdict": "not worse", "aside": estimate(0.75)}
    plain = {"validation": (0.6, 0.5), "weights": SHARES, "bad_clients": BAD}
    return (
        row("flipped", "fedavg", 0.7, accuracy=estimate(0.9), **plain),
        row("flipped", "verified", 0.7001, accuracy=estimate(0.91), **almost),
    )


def comparison(**changes):
    usual = {
        "model": "builtin:micro",
        "settings": {},
        "seeds": (1, 2),
        "num_clients": 4,
        "rounds": 2,
        "examples": {"instructions, train": 10},
        "scenarios": SCENARIOS,
        "methods": tuple(MethodInfo(name=name, title=METHODS[name].title, settings={}) for name in METHODS_SHOWN),
        "rows": shuffled_rows() + flipped_rows(),
        "bootstrap_samples": 200,
    }
    return Comparison(**(usual | changes))
