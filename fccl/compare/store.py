"""Finished trials on the disk: one file each, named by all that the result depends on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from fccl.compare.beginnings import beginnings, course
from fccl.compare.trial import Trial
from fccl.compare.values import TrialResult
from fccl.errors import StorageError
from fccl.paths import ComparePaths
from fccl.storage.files import write_text
from fccl.storage.reading import read_value

EARLIER = "cells"  # as version 0.1 called the folder of trials


def finished(paths: ComparePaths, trial: Trial) -> TrialResult | None:
    """The result of a trial, if it is there whole and is of this very spec."""
    found = read_value(paths.trial(trial.spec.key), TrialResult)
    return found if found is not None and found.spec == trial.spec else None


def adopt(paths: ComparePaths) -> None:
    """Give the folder of version 0.1 its present name. Raises `StorageError` when that cannot be done."""
    earlier = paths.root / EARLIER
    if not earlier.is_dir() or paths.trials.exists():
        return
    try:
        earlier.rename(paths.trials)
    except OSError as error:
        raise StorageError(
            f"cannot rename {earlier}/ to {paths.trials.name}/: {error.strerror or error}",
            hint="make the folder writable, or name another with --out",
        ) from error


def keep(paths: ComparePaths, result: TrialResult) -> None:
    """Write a result, all or nothing. Raises `StorageError`."""
    write_text(paths.trial(result.spec.key), result.model_dump_json() + "\n")


def runs(trials: Iterable[Trial]) -> dict[str, Trial]:
    """By each trial's key the trial to run for it, in their order: itself, or the longest that begins like it."""
    families: dict[tuple[str, bool], list[Trial]] = {}
    for trial in trials:
        families.setdefault((course(trial.spec), trial.spec.until_flat), []).append(trial)
    found: dict[str, Trial] = {}
    for family in families.values():
        longest = max(family, key=lambda trial: trial.spec.rounds)
        begins = beginnings(longest.spec, [*longest.begins, *(trial.spec for trial in family)])
        found |= {trial.spec.key: replace(longest, begins=begins) for trial in family}
    return found


def unfinished(paths: ComparePaths, trials: Iterable[Trial]) -> list[Trial]:
    """The trials that are not finished; of trials with an equal spec the first."""
    found: dict[str, Trial] = {}
    for trial in trials:
        if trial.spec.key not in found and finished(paths, trial) is None:
            found[trial.spec.key] = trial
    return list(found.values())


def to_do(paths: ComparePaths, trials: Iterable[Trial]) -> list[Trial]:
    """The trials to run, so that all of these are finished: none that is the beginning of another one to run."""
    return list({run.spec.key: run for run in runs(unfinished(paths, trials)).values()}.values())
