"""A run inside a command: with the processes, the rules and the records of any other, without screen or tracker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

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
