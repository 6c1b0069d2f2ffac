"""Figures of a plan that are neither time nor space: one line for each that the settings ask for."""

from __future__ import annotations

from fccl.config import Settings
from fccl.records.forecast import OtherFigure
from fccl.records.manifest import Manifest
from fccl.specs import PHASES


def other_figures(settings: Settings, manifest: Manifest) -> tuple[OtherFigure, ...]:
    """The figures that these settings ask for; `manifest` says how many examples each client has."""
    return tuple(figure for make in _FIGURES for figure in make(settings, manifest))


def _examples(settings: Settings, manifest: Manifest) -> tuple[OtherFigure, ...]:
    """The examples of the smallest and of the largest client."""
    counts = manifest.samples_by_client()
    samples = [sum(each) for each in zip(*(counts[phase].values() for phase in PHASES), strict=True)]
    if not samples:
        return ()
    return (OtherFigure(name="examples of a client", predicted=f"{min(samples):,} to {max(samples):,}"),)


_FIGURES = (_examples,)
