"""Prepared data for a command that is no run: that of `DATA_DIR`, else of a folder that goes again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fccl.config import Settings
from fccl.data.in_use import SILENT, Witness, data_in_use, is_ready
from fccl.library.narrow import data_spec
from fccl.paths import DataPaths
from fccl.records.manifest import Manifest


@contextmanager
def borrowed_data(settings: Settings, witness: Witness = SILENT) -> Iterator[tuple[DataPaths, Manifest]]:
    """The data that the settings ask for; nobody prepares it anew while the block runs. `DATA_DIR` is not written to.

    Raises what `prepare` raises.
    """
    spec, own = data_spec(settings), DataPaths(settings.data_dir)
    if is_ready(spec, own, SILENT):
        with data_in_use(spec, own, witness) as manifest:
            yield own, manifest
        return
    with tempfile.TemporaryDirectory(prefix="fccl-data-") as name:
        there = DataPaths(Path(name))
        with data_in_use(spec, there, witness) as manifest:
            yield there, manifest
