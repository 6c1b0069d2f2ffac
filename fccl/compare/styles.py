"""Colours, markers and dashes of a comparison's methods: one look for each method in every picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fccl.compare.methods import METHODS
from fccl.display.png import INK, fixed
from fccl.records.comparison import FEDAVG, ORACLE, POOLED

BAD, GOOD = "#d55e00", "#0072b2"  # apart for colour-blind readers; bad clients have a "!" too
_EX = "M-1,-.6L-.6,-1L0,-.4L.6,-1L1,-.6L.4,0L1,.6L.6,1L0,.4L-.6,1L-1,.6L-.4,0Z"
_STAR = "M0,-1L.24,-.32L.95,-.31L.38,.12L.59,.81L0,.4L-.59,.81L-.38,.12L-.95,-.31L-.24,-.32Z"
_PENTAGON = "M0,-1L.95,-.31L.59,.81L-.59,.81L-.95,-.31Z"
_HEXAGON = "M0,-1L.87,-.5L.87,.5L0,1L-.87,.5L-.87,-.5Z"
_BAR = "M-1,-.4L1,-.4L1,.4L-1,.4Z"
_PILLAR = "M-.4,-1L.4,-1L.4,1L-.4,1Z"
LINE, _DASHED, _DOTTED = (1, 0), (6, 4), (2, 3)
_STRONG_STYLES = {  # of those that the claim is about; the others differ by colour, marker and dash
    FEDAVG: (INK, "circle", LINE, 2.2),
    "tempered": (GOOD, "diamond", LINE, 2.4),
    "verified": (GOOD, "diamond", _DASHED, 2.0),
    POOLED: ("#7f6fb0", "triangle-up", _DASHED, 2.0),
    ORACLE: ("#009e73", "square", _DASHED, 2.0),
}
_OTHERS = ("#cc79a7", "#e69f00", "#56b4e9", "#d55e00", "#7f6fb0", "#999933", "#aa4466")
_MARKERS = ("triangle-up", "triangle-down", "cross", _EX, _PENTAGON, _HEXAGON, _STAR, _BAR, _PILLAR)
STRONG = frozenset(_STRONG_STYLES)


def style(method: str) -> tuple[str, str, tuple[int, int], float]:
    """Colour, marker, dash and width of a method's line: the same in every picture."""
    if method in _STRONG_STYLES:
        return _STRONG_STYLES[method]
    others = [name for name in METHODS if name not in _STRONG_STYLES]
    place = others.index(method) if method in others else len(others) + sum(method.encode())
    dash = (LINE, _DOTTED)[place // len(_OTHERS) % 2]
    return _OTHERS[place % len(_OTHERS)], _MARKERS[place % len(_MARKERS)], dash, 1.2


def styled(names: Sequence[str], titles: Sequence[str], part: int, wide: bool) -> dict[str, Any]:
    """One part of `style` by method, with the key: beside the picture, on a phone below it."""
    key: dict[str, Any] = {"title": None, "symbolSize": 60, "symbolStrokeWidth": 0}
    key |= {} if wide else {"orient": "bottom", "columns": 2}
    scale = fixed(titles, [style(name)[part] for name in names])
    return {"field": "method", "type": "nominal", "scale": scale, "legend": key}
