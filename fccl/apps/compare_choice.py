"""The scenarios, methods and seeds that `fccl compare` compares, and the settings that it leaves to a person."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fccl.apps.refused import BY_COMPARE
from fccl.compare import evidence, methods, scenarios
from fccl.compare.grids import AT, GRIDS, tuned
from fccl.compare.methods import METHODS, Method, own_method
from fccl.compare.scenarios import SCENARIOS, Scenario
from fccl.compare.tuning import expanded
from fccl.config import Settings, load_settings, set_elsewhere
from fccl.display.words import nearest
from fccl.errors import SettingsError
from fccl.library.ignored import readers
from fccl.records.comparison import FEDAVG
from fccl.registry import is_own

FULL_SEEDS, QUICK_SEEDS = 5, 2
MOST_JOBS = 8
# What a comparison starts from, where a person has not said otherwise.
DEFAULTS: Mapping[str, Any] = {"num_clients": 8}
QUICK: Mapping[str, Any] = {"max_sft_examples": 2200}

Named = TypeVar("Named", Scenario, Method)


@dataclass(frozen=True)
class Choice:
    """The scenarios, methods and seeds to compare."""

    scenarios: tuple[Scenario, ...]
    methods: tuple[Method, ...]
    seeds: tuple[int, ...]
    jobs: int
    primary: bool = False  # the set that the claim rests on, within its budget


def with_defaults(settings: Settings, quick: bool) -> Settings:
    """The settings, those that nobody has named replaced by a comparison's own. Clients train as under FedAvg."""
    wanted = {**DEFAULTS, **(QUICK if quick else {})}
    unnamed = {name: value for name, value in wanted.items() if name not in settings.model_fields_set}
    return settings.model_copy(update={**unnamed, "aggregation": FEDAVG, "lora_aggregation": "factors"})


def chosen(settings: Settings, options: argparse.Namespace) -> Choice:
    """The scenarios, methods and seeds by their names.

    FedAvg, the yardstick, is always there. Raises `SettingsError`.
    """
    jobs = options.jobs or max(1, min(MOST_JOBS, os.cpu_count() or 1))
    if options.set:
        _refuse_beside_set(options)
        return Choice(evidence.scenarios(), evidence.methods(), evidence.JUDGING_SEEDS, jobs, primary=True)
    wanted = _named(options.scenarios, SCENARIOS, "scenario", scenarios.QUICK if options.quick else tuple(SCENARIOS))
    known = with_own(options.methods, settings)
    ways = _named(options.methods, known, "method", methods.QUICK if options.quick else tuple(METHODS))
    ways = tuple(method for method in known.values() if method in ways or method.name == FEDAVG)
    if settings.client_column:
        raise SettingsError(
            f"CLIENT_COLUMN={settings.client_column}: a comparison deals the data by its own scenarios",
            hint="leave it out; NON_IID_ALPHA says how unlike clients are",
        )
    if settings.num_clients < 2:
        raise SettingsError(f"NUM_CLIENTS={settings.num_clients}: a comparison needs at least 2 clients")
    count = options.seeds or (QUICK_SEEDS if options.quick else FULL_SEEDS)
    if options.until_flat:
        wanted = tuple(each for scenario in wanted for each in (scenario, scenario.unhurried))
    if options.tune:
        return Choice(wanted, _tunable(ways), evidence.TUNING_SEEDS[: options.seeds or None], jobs)
    seeds = tuple(range(settings.seed, settings.seed + count))
    if any(AT in method.name for method in ways):
        refuse_tuning_seeds(seeds)
    return Choice(wanted, ways, seeds, jobs)


def refuse_tuning_seeds(seeds: Sequence[int]) -> None:
    """Raises `SettingsError` for a judgement of tuned methods on a seed that values are tuned on."""
    if both := sorted(set(seeds) & set(evidence.TUNING_SEEDS)):
        raise SettingsError(
            f"seed {both[0]} is one that methods are tuned on, and a tuned method is among those to judge",
            hint="choose another --seed, or fewer --seeds",
        )


def _tunable(ways: Sequence[Method]) -> tuple[Method, ...]:
    """The methods at every value of their knobs. Raises `SettingsError` where none has one."""
    if found := expanded(ways):
        return found
    raise SettingsError("--tune: none of these methods has a knob", hint=f"these have: {', '.join(GRIDS)}")


def _refuse_beside_set(options: argparse.Namespace) -> None:
    """Raises `SettingsError` for an argument that the primary set decides, so that nobody chooses after the fact."""
    beside = ("scenarios", "methods", "seeds", "quick", "until_flat", "tune")
    for flag in (f"--{name}".replace("_", "-") for name in beside if getattr(options, name)):
        raise SettingsError(
            f"{flag} beside --set {options.set}: its scenarios, methods and seeds are fixed",
            hint="leave one of the two out",
        )


def _named(text: str, known: Mapping[str, Named], what: str, default: Sequence[str]) -> tuple[Named, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()] or list(default)
    for name in names:
        if name not in known:
            guess = nearest(name, known)
            listed = f"there are {', '.join(known)}"
            raise SettingsError(f"unknown {what} {name}", hint=f"did you mean {guess}? {listed}" if guess else listed)
    return tuple(known[name] for name in known if name in names)


def unread_line(given: Mapping[str, object], choice: Choice) -> str:
    """A line on settings that somebody has set and no method reads; empty when there are none.

    They are not refused: the same command goes on with other methods.
    """
    read = {name for method in choice.methods for name in method.reads} | BY_COMPARE.keys()
    unread = sorted(name.upper() for name in {*given, *set_elsewhere()} if readers(name) and name not in read)
    return f"Settings that none of these methods reads: {', '.join(unread)}." if unread else ""


def _value(setting: str, text: str) -> float:
    """A setting's value from its text. Raises `SettingsError` for one that it does not allow."""
    return float(getattr(load_settings({setting: text}), setting))


def with_own(text: str, settings: Settings) -> Mapping[str, Method]:
    """Our methods, and after them what else the argument --methods names: methods with a value of their knob
    (`fedadam@0.1`), and classes of one's own.

    Raises `SettingsError` for one that cannot be had.
    """
    names = [name.strip() for name in text.split(",")]
    valued = {name: method for name in names if (method := tuned(name, _value)) is not None}
    return {**METHODS, **valued, **{name: own_method(name, settings.model_dump()) for name in names if is_own(name)}}
