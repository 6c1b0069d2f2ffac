"""A run inside a command: with the processes, the rules and the records of any other, without screen or tracker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from fccl.config import Settings
from fccl.federation.run_folder import RunFolder
from fccl.library.setup import PreparedRun, prepared_run
from fccl.library.side_by_side import transport_for
from fccl.model.language_model import LanguageModel
from fccl.model.loading import Models
from fccl.tracking.listener import RunListener
from fccl.tracking.tracker import NoTracker
from fccl.training.engines import learner_for
from fccl.transports.protocol import Transport

_ROOM_MB = 1_000_000


def inner_settings(settings: Settings, root: Path, logs: str = "logs") -> Settings:
    """The settings of a run inside the folder `root`, on data in its `data/`: nothing of it lies elsewhere, a client's
    secrets included, and all of its updates are kept.
    """
    changes = {
        "data_dir": root / "data",
        "log_dir": root / logs,
        "state_dir": root / "state",
        "keep_updates_mb": _ROOM_MB,
        "noisy_clients": "",  # the data is as it is prepared
        "client_column": "",
    }
    return settings.model_copy(update=changes)


@contextmanager
def inner_run(
    settings: Settings, folder: RunFolder, model: LanguageModel, models: Models, listener: RunListener | None = None
) -> Iterator[tuple[PreparedRun, Transport]]:
    """The run and the way to its clients. Raises what a run with these settings raises."""
    learner = learner_for(models, settings.client_ranks)
    with (
        transport_for(settings, learner, lambda: work, models=models) as transport,
        prepared_run(settings, folder, model, NoTracker(), nullcontext(listener or RunListener())) as work,
    ):
        yield work, transport
