"""Colours, dashes and shapes of the charts.

Every colour has a contrast of at least 3 : 1 on white and on a dark page (#0e1117). Those of the clients and `GLOBAL`
also stay apart for readers with protanopia, deuteranopia or tritanopia. By the model of Machado, Oliveira & Fernandes
(2009) the CIE76 distance of every two is at least 24. Still nothing is told by colour alone: lines differ by dash,
points by shape, and stacked areas bear their number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import altair as alt

GLOBAL = "#1297fd"  # what is everybody's: the global model, the run
COLOURS = (
    "#207430",
    "#b88a05",
    "#6d32ff",
    "#ff5867",
    "#a487c4",
    "#b24673",
    "#8f3fb2",
)  # of the clients, again from the first after the last
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right", "triangle-left")
DASHES = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3))  # the next for each time that the colours begin again
NEUTRAL = "#7a8089"  # what is nobody's: bands, rules, the rest
GAIN, LOSS = GLOBAL, "#ff5867"  # always with a shape of their own
RAMP = ("rgba(11, 116, 209, 0.05)", "rgba(11, 116, 209, 1)")  # of heat maps: one hue, from the page's own background on


def colour(client: int) -> str:
    """A client's colour, in every chart."""
    return COLOURS[client % len(COLOURS)]


def shape(client: int) -> str:
    """The shape of its points."""
    return SHAPES[client % len(SHAPES)]


def dash(client: int) -> list[int]:
    """The dash of its lines: clients of one colour differ by it."""
    return list(DASHES[client // len(COLOURS) % len(DASHES)])


def name_of(client: int) -> str:
    """The name of a client in a legend."""
    return f"client {client}"


def client_scale(clients: Sequence[int], look: Callable[[int], str | list[int]]) -> alt.Scale:
    """From client names to what `look` gives each: `colour`, `shape` or `dash`."""
    return alt.Scale(domain=[name_of(client) for client in clients], range=[look(client) for client in clients])
