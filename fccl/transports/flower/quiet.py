"""The environment of Flower's processes as we start them: nothing is sent to anybody, nothing is installed."""

from __future__ import annotations

from collections.abc import Mapping

QUIET: Mapping[str, str] = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",  # of the SuperLink, whose default it is to install
    "RAY_USAGE_STATS_ENABLED": "0",  # of the simulation
}
FAST: Mapping[str, str] = {"FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2"}  # seconds; 1 by default
