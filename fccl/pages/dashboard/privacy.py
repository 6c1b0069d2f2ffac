"""The privacy that the run has spent: one sentence, and a row for each round and each client. A sentence on secure
sums.
"""

from __future__ import annotations

from fccl.pages.dashboard.widgets import heading, html_table, note
from fccl.view.privacy import clients_table, privacy_line, rounds_table, secure_line
from fccl.view.values import RunView

UNSEEN = "Noise is added at the server: nothing of a single client is written down, so the panels by client stay empty."
UNKNOWN = "Nobody knows the weight of a single client, its loss or its samples: the panels by client stay empty."


def show(view: RunView) -> None:
    """Nothing of a run without differential privacy and without secure sums."""
    if view.secure:
        heading("Secure aggregation")
        note(secure_line(view.secure))
        note(UNKNOWN)
    if not view.privacy:
        return
    said = view.privacy[-1][2]
    heading("Privacy spent")
    note(privacy_line(said))
    if said.where == "server":
        note(UNSEEN)
    for table in (rounds_table(view), clients_table(view)):
        if table is not None:
            html_table(table)
