"""Figures of runs that are over, kept in a file, so that a benchmark of many runs goes on where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path


class Kept:
    """Figures by name, a JSON line each: `[name, figure, ...]`. Without a file nothing outlasts the process.

    >>> kept = Kept(None)
    >>> kept.figures("seed 1", lambda: (0.5, 0.25)), kept.figures("seed 1", lambda: (7.0,))
    ((0.5, 0.25), (0.5, 0.25))
    """

    def __init__(self, path: Path | None) -> None:
        lines = path.read_text().splitlines(keepends=True) if path and path.is_file() else []
        whole = [line for line in lines if line.endswith("\n")]  # a process that was killed may leave half a line
        if path and len(whole) < len(lines):
            path.write_text("".join(whole))
        self.path, self.found = path, {name: tuple(figures) for name, *figures in map(json.loads, whole)}

    def figures(self, name: str, measure: Callable[[], Iterable[float]]) -> tuple[float, ...]:
        """Those that are kept, else those that `measure` gives, kept from now on."""
        if name not in self.found:
            self.found[name] = tuple(measure())
            if self.path:
                with self.path.open("a") as file:
                    file.write(json.dumps([name, *self.found[name]]) + "\n")
        return self.found[name]
