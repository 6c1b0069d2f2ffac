"""The data of each client, and the settings that the run was started with."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from fccl.display import words
from fccl.display.plain_text import one_line
from fccl.pages.dashboard.readers import Hub
from fccl.pages.dashboard.widgets import chart, heading, html_table, note, nothing, table
from fccl.records.manifest import Manifest, SourceReport
from fccl.view import charts
from fccl.view.origins import origins_table
from fccl.view.values import RunView

NO_MANIFEST = "The run's folder has no manifest of its data."


def show(hub: Hub, view: RunView) -> None:
    """Topics by client, sources and counts, then the settings."""
    heading("Who holds what")
    manifest = view.manifest
    if manifest is None:
        nothing(NO_MANIFEST)
    else:
        topics(hub, view, manifest)
        sources(manifest)
        origins(manifest)
    settings(view)


def topics(hub: Hub, view: RunView, manifest: Manifest) -> None:
    """Topics by client, for instructions and for pairs."""
    if manifest.spec.server_only:
        nothing("Every client holds its own data, which the server has not seen.")
        return
    left, right = st.columns(2, gap="medium")
    with left:
        says = "Heat map of training instructions by topic and client"
        chart(
            hub,
            view,
            "Topics of the instructions",
            lambda: charts.topics(manifest, "sft"),
            says,
            "No client holds instructions.",
        )
    with right:
        says = "Heat map of preference pairs by topic and client"
        chart(hub, view, "Topics of the pairs", lambda: charts.topics(manifest, "va"), says, "No client holds pairs.")
    if manifest.noisy_clients:
        numbers = ", ".join(map(str, manifest.noisy_clients))
        note(f"Spoilt on purpose ({manifest.spec.noise_kind}): client {numbers}.")


def origins(manifest: Manifest) -> None:
    """The names that became each client, where a column of the data names clients: closed until somebody asks."""
    found = origins_table(manifest)
    if found is not None:
        with st.expander(found.title, key="origins"):
            note(found.note)
            html_table(found)


def sources(manifest: Manifest) -> None:
    """The sources of the examples, and how they were split."""
    rows = [source_row(source, manifest) for source in manifest.sources]
    table(pd.DataFrame(rows), "sources", "Sources of the data and their splits")


def source_row(source: SourceReport, manifest: Manifest) -> dict[str, object]:
    kind = {"sft": "instructions", "va": "preference pairs"}[source.phase]
    splits = {split: counts.get(source.phase, 0) for split, counts in manifest.counts.items()}
    left_out = source.bad_rows + source.nothing_to_learn + source.marked + source.duplicates
    return {"kind": kind, "source": one_line(source.name), "read": source.rows_read, "left out": left_out, **splits}


def settings(view: RunView) -> None:
    """The settings as they were recorded, and the versions of the packages."""
    heading("Settings")
    if view.info is None:
        nothing("The run has recorded no settings.")
        return
    rows = pd.DataFrame(
        [(name.upper(), one_line(value)) for name, value in view.info.settings.items()], columns=["setting", "value"]
    )
    rows["setting"] = rows["setting"].map(one_line)
    left, right = st.columns([3, 2], gap="medium")
    with left:
        table(rows, "settings", "Settings of the run", height=420)
    with right:
        versions = pd.DataFrame(
            [(one_line(name), one_line(value)) for name, value in view.info.versions.items()],
            columns=["package", "version"],
        )
        table(versions, "versions", "Versions of the packages that the run used")
        note(
            f"Started {words.moment(view.info.created)} in {view.paths.root}. Data {view.info.data_sha256[:12]} "
            "(SHA-256 of the manifest)."
        )
