"""The forecast of a run (`fccl plan`) on its way into the run's folder."""

from __future__ import annotations

import os
from collections.abc import Mapping

from fccl.paths import LogPaths
from fccl.records.forecast import Forecast
from fccl.storage.files import storage_errors
from fccl.storage.reading import read_value

# What a run may have otherwise than its plan said, and still be the run that was planned.
_FREE = frozenset({"data_dir", "log_dir", "track"})


def take_plan(paths: LogPaths, settings: Mapping[str, str]) -> None:
    """Make the forecast that waits in the folder this run's own, if it was made for these settings."""
    forecast = read_value(paths.planned, Forecast)
    if forecast is not None and is_for(forecast, settings):
        with storage_errors(paths.plan):
            os.replace(paths.planned, paths.plan)


def is_for(forecast: Forecast, settings: Mapping[str, str]) -> bool:
    """Whether the forecast is of a run with these settings."""
    return all(settings.get(name) == value for name, value in forecast.settings.items() if name not in _FREE)
