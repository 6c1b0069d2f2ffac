"""Finished cells on the disk: one file each, named by all that the result depends on."""

from __future__ import annotations

from collections.abc import Iterable

from fccl.compare.trial import Cell
from fccl.compare.values import CellResult
from fccl.paths import ComparePaths
from fccl.storage.files import write_text
from fccl.storage.reading import read_value


def finished(paths: ComparePaths, cell: Cell) -> CellResult | None:
    """The result of a cell, if it is there whole and is of this very work."""
    found = read_value(paths.cell(cell.work.key), CellResult)
    return found if found is not None and found.work == cell.work else None


def keep(paths: ComparePaths, result: CellResult) -> None:
    """Write a result, all or nothing. Raises `StorageError`."""
    write_text(paths.cell(result.work.key), result.model_dump_json() + "\n")


def to_do(paths: ComparePaths, cells: Iterable[Cell]) -> list[Cell]:
    """The cells that are not finished; of cells with equal work the first."""
    found: dict[str, Cell] = {}
    for cell in cells:
        if cell.work.key not in found and finished(paths, cell) is None:
            found[cell.work.key] = cell
    return list(found.values())
