"""The exchange directory: which files of each round are there, and what was refused."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import pandas as pd
import streamlit as st

from fccl.display import words
from fccl.display.plain_text import one_line
from fccl.pages.dashboard.readers import Hub
from fccl.pages.dashboard.widgets import guarded, heading, note, nothing, table, titled_table
from fccl.records.rejection import Rejection
from fccl.view.sent_bytes import bytes_table
from fccl.view.status import client_count
from fccl.view.values import ExchangeFile, ExchangeView, RunView

EVERY_S = 2.0
KINDS = {
    "global_adapter": "global adapter",
    "task": "task",
    "phase": "phase",
    "update": "update",
    "contribution": "contribution",
    "flag": "flag",
    "reference": "reference policy",
    "correction": "correction (SCAFFOLD)",
    "control": "control variate (SCAFFOLD)",
    "request": "request",
    "adapter": "adapter of a request",
    "reply": "reply",
    "status": "heartbeat",
    "member": "joins or leaves",
}
SERVER, CLIENT = ("global_adapter", "task", "phase"), ("update", "contribution", "flag")  # each in the order of writing
MANY = {"update": "updates", "contribution": "contributions", "flag": "flags"}


def show(hub: Hub, view: RunView) -> None:
    """Bytes by round; then the directory in a fragment, since it changes while the records do not."""
    titled_table(bytes_table(view))
    files(hub, client_count(view))


@st.fragment(run_every=EVERY_S)
def files(hub: Hub, clients: int | None) -> None:
    with guarded("The exchange directory"):
        found = hub.exchange()
        if not found.exists:
            nothing(
                f"{hub.exchange_paths.root} does not exist: the run works in one process, or its directory is "
                "another (--exchange-dir)."
            )
            return
        heading("Files by round")
        rounds(found.files, clients)
        rejections(found)
        other_files(found)


def rounds(files: Sequence[ExchangeFile], clients: int | None) -> None:
    """A row for every round that has files here, newest first; below, who has answered in the newest."""
    by_round: dict[int, list[ExchangeFile]] = defaultdict(list)
    for file in files:
        if file.round is not None:
            by_round[file.round].append(file)
    if not by_round:
        nothing("No round has been opened here yet.")
        return
    note(
        "In the order of writing: the phase opens a round, a flag completes an answer. Old rounds are removed "
        "(KEEP_ROUNDS)."
    )
    newest = max(by_round)
    rows = [round_row(number, by_round[number], clients) for number in sorted(by_round, reverse=True)]
    table(pd.DataFrame(rows), "exchange rounds", "Files in the exchange directory by round")
    answers(newest, by_round[newest])


def round_row(number: int, files: Sequence[ExchangeFile], clients: int | None) -> dict[str, object]:
    """The files of one round: the server's, and the number of clients with each."""
    counts = Counter(file.kind for file in files)
    server = {KINDS[kind]: "✓ there" if counts[kind] else "– missing" for kind in SERVER}
    total = f" of {clients}" if clients is not None else ""
    written = max(file.modified for file in files)
    answered = {MANY[kind]: f"{counts[kind]}{total}" for kind in CLIENT}
    return {
        "round": number + 1,
        **server,
        **answered,
        "size": words.size(sum(file.bytes for file in files)),
        "last written": words.moment(written),
    }


def answers(number: int, files: Sequence[ExchangeFile]) -> None:
    """Every client's answer in one round."""
    by_client: dict[int, dict[str, ExchangeFile]] = defaultdict(dict)
    for file in files:
        if file.client is not None:
            by_client[file.client][file.kind] = file
    heading(f"Answers in round {number + 1}")
    if not by_client:
        nothing("No client has written anything for this round yet.")
        return
    table(
        pd.DataFrame([answer_row(client, by_client[client]) for client in sorted(by_client)]),
        f"exchange answers {number}",
        "Answers by client",
    )


def answer_row(client: int, there: dict[str, ExchangeFile]) -> dict[str, object]:
    """One client's three files."""
    cells = {KINDS[kind]: f"✓ {words.size(there[kind].bytes)}" if kind in there else "– not yet" for kind in CLIENT}
    return {"client": client, **cells, "answer": "✓ complete" if "flag" in there else "… in writing"}


def rejections(found: ExchangeView) -> None:
    """The files that the server refused, and why."""
    heading("Refused files")
    if not found.rejected_total:
        nothing("None.")
        return
    note(f"{words.plural(found.rejected_total, 'refusal')}, newest first. The files are kept in rejected/.")
    table(
        pd.DataFrame([rejection_row(each) for each in found.rejected]), "rejected", "Refused files and why", height=300
    )


def rejection_row(each: Rejection) -> dict[str, object]:
    return {
        "time": words.moment(each.time),
        "round": each.round + 1,
        "client": "" if each.client_id is None else str(each.client_id),
        "reason": one_line(each.reason),
        "files": one_line(", ".join(each.files)),
        "run": one_line(each.run_id),
    }


def other_files(found: ExchangeView) -> None:
    """Files that belong to no round, and names that are none of the protocol's."""
    rows = [file for file in found.files if file.round is None]
    total = sum(file.bytes for file in found.files)
    heading("Other files")
    note(f"{words.plural(len(found.files), 'file')} of the protocol in all, {words.size(total)}.")
    if rows:
        table(pd.DataFrame([file_row(file) for file in rows]), "other files", "Files of no round", height=300)
    if found.strangers:
        note("Not of the protocol, and ignored: " + ", ".join(one_line(name) for name in found.strangers))


def file_row(file: ExchangeFile) -> dict[str, object]:
    return {
        "file": one_line(file.name),
        "what": KINDS[file.kind],
        "size": words.size(file.bytes),
        "written": words.moment(file.modified),
    }
