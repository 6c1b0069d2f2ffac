"""The topic-by-client tables as a picture.

Imports matplotlib, inside the functions that need it; no window, no global state.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fccl.records.manifest import Manifest
from fccl.specs import PHASES, Phase

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_TOPICS = 30  # rows; the smallest topics share the last one
MAX_LETTERS = 40  # of a topic's name; a longer one would leave no room for the table
MAX_NUMBERED = 16  # clients whose cells still have room for their number
TITLES = {"sft": "instructions (SFT)", "va": "preference pairs (VA)"}

Table = Sequence[Sequence[int]]  # [topic][client] -> examples


def draw_picture(manifest: Manifest) -> bytes:
    """Two heat maps as a PNG, SFT and VA: the share of each topic's training examples that each client holds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = topic_rows(manifest, "sft", MAX_TOPICS)[0]
    clients = manifest.spec.partition.num_clients
    width, height = 4.2 + 2 * min(max(1.6, 0.5 * clients), 7), 1.7 + 0.3 * max(3, len(names))
    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(PHASES), sharey=True, squeeze=False)[0]
    darkest = (
        1.0
        if clients <= MAX_NUMBERED
        else max(max(row) for phase in PHASES for row in _shares(topic_rows(manifest, phase, MAX_TOPICS)[1]))
    )
    for axis, phase in zip(axes, PHASES, strict=True):
        _draw(axis, manifest, phase, darkest)
    bar = figure.colorbar(axes[-1].images[0], ax=list(axes), format="{x:.0%}", fraction=0.04, pad=0.02)
    bar.ax.tick_params(labelsize=8)
    bar.set_label("share of the topic", fontsize=8)
    figure.suptitle(_title(manifest), fontsize=10)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing from font"
        )  # a topic may be named in any script; boxes then stand for it
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _title(manifest: Manifest) -> str:
    split = manifest.spec.partition
    alpha = "IID" if split.alpha is None else f"Dirichlet alpha = {split.alpha:g}"
    return (
        f"Training examples by topic and client: {split.num_clients} clients, {alpha}, size skew "
        f"{split.size_skew:g}, "
        f"seed {split.seed}"
    )


def _shares(table: Table) -> list[list[float]]:
    return [[count / max(1, sum(row)) for count in row] for row in table]


def _draw(axis: Axes, manifest: Manifest, phase: Phase, darkest: float) -> None:
    names, table = topic_rows(manifest, phase, MAX_TOPICS)
    clients = len(manifest.topics_by_client[phase])
    shares = _shares(table)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=darkest, aspect="auto", interpolation="nearest")
    axis.set_title(TITLES[phase], fontsize=9)
    axis.set_yticks(
        range(len(names)), [_short(name) for name in names], parse_math=False
    )  # "$5 to $10" is a name, not mathematics
    axis.tick_params(labelsize=8)
    axis.set_xlabel("client" + (" (! spoilt on purpose)" if manifest.noisy_clients else ""), fontsize=8)
    if clients <= MAX_NUMBERED:
        axis.set_xticks(
            range(clients), [f"{client}{'!' if client in manifest.noisy_clients else ''}" for client in range(clients)]
        )
        _write_numbers(axis, table, shares)


def _short(name: str) -> str:
    return name if len(name) <= MAX_LETTERS else name[: MAX_LETTERS - 1] + "…"


def _write_numbers(axis: Axes, table: Table, shares: Sequence[Sequence[float]]) -> None:
    for y, row in enumerate(table):
        for x, count in enumerate(row):
            axis.text(
                x,
                y,
                str(count),
                ha="center",
                va="center",
                fontsize=7,
                color="white" if shares[y][x] > 0.55 else "black",
            )


def topic_rows(manifest: Manifest, phase: Phase, limit: int) -> tuple[list[str], list[list[int]]]:
    """Names and [topic][client] counts of at most `limit` rows; when there are more topics, the last row is the sum of
    the rest.
    """
    names = list(manifest.topics)
    table = [list(row) for row in zip(*manifest.topics_by_client[phase], strict=True)]
    if len(names) > limit:
        rest = table[limit - 1 :]
        names = [*names[: limit - 1], f"{len(rest)} smaller topics"]
        table = [*table[: limit - 1], [sum(column) for column in zip(*rest, strict=True)]]
    return names, table
