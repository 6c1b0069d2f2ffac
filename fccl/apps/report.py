"""`fccl report`: a run as one HTML file, to send to a colleague."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from fccl.apps.console import say
from fccl.config import Settings
from fccl.display.words import nearest
from fccl.errors import FederationError, SettingsError, no_run
from fccl.extras import REPORT, require_extra
from fccl.library.places import require_apart
from fccl.paths import ExchangePaths, LogPaths
from fccl.storage.files import write_text
from fccl.storage.temporary import sweep_for

SHOWN_RUNS = 5


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Write the report of the run in `LOG_DIR`, or of an earlier one. Returns the exit status."""
    require_extra("dashboard", "the report", REPORT)
    out = Path(options.out) if options.out else LogPaths(settings.log_dir).report
    if out.suffix.lower() not in (".html", ".htm"):
        raise SettingsError(f"{out}: the report is an HTML file", hint="give it a name that ends in .html")
    require_apart(settings, ("log_dir", "exchange_dir"), options.out, LogPaths(settings.log_dir).report)
    sweep_for(out)
    content = report_of(settings.log_dir, settings.exchange_dir, options.run, say)
    write_text(out, content)
    say(
        f"Wrote {out} ({len(content.encode()) / 1e6:.1f} MB). It needs no network: open it in a browser, print it, "
        "send it."
    )
    return 0


def report_of(log_dir: Path, exchange_dir: Path, run_id: str, tell: Callable[[str], None]) -> str:
    """The HTML of a run; `tell` hears a line before the charts are drawn, which takes seconds.

    Raises `FederationError` when there is no run, or none of that name.
    """
    from fccl.pages.report.build import build
    from fccl.pages.report.render import render
    from fccl.view.answers import read_answers
    from fccl.view.exchange import ExchangeReader
    from fccl.view.runs import RunReader, list_runs
    from fccl.view.tail import ComparisonReader

    runs = list_runs(log_dir)
    if not runs:
        raise no_run(log_dir, "report")
    entry = next((entry for entry in runs if entry.run_id == run_id), None) if run_id else runs[0]
    if entry is None:
        guess = nearest(run_id, [entry.run_id for entry in runs])
        known = ", ".join(entry.run_id for entry in runs[:SHOWN_RUNS])
        raise FederationError(
            f"{log_dir} holds no run {run_id}", hint=f"did you mean {guess}?" if guess else f"there are {known}"
        )
    tell(f"Drawing the tables and charts of run {entry.run_id} ...")
    exchange = ExchangePaths(exchange_dir) if entry.current else None
    view, compared = RunReader(entry.paths, exchange).refresh(), ComparisonReader(entry.paths.compare.results).refresh()
    return render(
        build(
            view,
            ExchangeReader(exchange).refresh() if exchange else None,
            time.time(),
            compared.results if compared else None,
            read_answers(entry.paths, entry.run_id),
        )
    )
