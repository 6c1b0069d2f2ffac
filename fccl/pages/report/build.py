"""A run as a report: every section in its order."""

from __future__ import annotations

import time

from fccl import __version__
from fccl.display.plain_text import one_line
from fccl.display.tables import Table
from fccl.pages.report import answers as answers_parts
from fccl.pages.report import comparison as comparison_parts
from fccl.pages.report import data as data_parts
from fccl.pages.report import evaluation as evaluation_parts
from fccl.pages.report import figures
from fccl.pages.report import run as run_parts
from fccl.pages.report.figures import Figures
from fccl.pages.report.parts import Report, Section
from fccl.records.comparison import Comparison
from fccl.view import sentences
from fccl.view.answers import RunAnswers
from fccl.view.audit_tables import AUDIT_LEAD, audit_tables, closed_lines
from fccl.view.forecast_tables import after_table
from fccl.view.origins import origins_table
from fccl.view.own_tests import own_tests_table
from fccl.view.privacy import clients_table, rounds_table
from fccl.view.sent_bytes import bytes_table
from fccl.view.sites import sites_table
from fccl.view.status import run_status
from fccl.view.taken import actual_of
from fccl.view.values import ExchangeView, RunStatus, RunView

NONE = RunAnswers()
NO_ROUND = "No round is complete yet. The first one brings the figures."


def build(
    view: RunView,
    exchange: ExchangeView | None,
    now: float,
    comparison: Comparison | None = None,
    answers: RunAnswers = NONE,
) -> Report:
    """The report of a run as it stands at the time `now`, with the comparison and the answers that lie beside it."""
    found, draw = run_status(view, now), Figures()
    return Report(
        title=f"Run {one_line(view.run_id)}",
        standing=sentences.STANDING_WORDS[found.standing],
        tone=run_parts.TONES.get(found.standing, "busy"),
        sentence=one_line(sentences.sentence(found, view.paths.root.name)),
        facts=run_parts.facts(view),
        notices=run_parts.notices(view, found),
        tiles=run_parts.tiles(view, found),
        sections=(
            _evaluation(view, found, draw),
            _training(view, draw),
            _influence(view, draw),
            _clients(view, found, now),
            _failures(view, exchange),
            *(*_audit(view), *_plan(view), _data(view, draw)),
            *(() if comparison is None else (comparison_parts.section(comparison, draw),)),
            *((answers_parts.section(answers, draw),) if answers.any else ()),
            Section(
                "settings",
                "Settings",
                "Bold: changed from the preset, whose own value is below.",
                tables=data_parts.settings_tables(view),
            ),
            Section(
                "provenance",
                "Versions and hashes",
                tables=_there(data_parts.versions_table(view), data_parts.hashes_table(view)),
            ),
        ),
        made=f"Made by fccl {__version__} on {time.strftime('%Y-%m-%d %H:%M', time.localtime(now))}.",
    )


def _evaluation(view: RunView, found: RunStatus, draw: Figures) -> Section:
    report = view.evaluation
    if report is None:
        later = "“fccl evaluate” does it." if found.standing == "finished" else "It comes when the rounds are complete."
        return Section("evaluation", "Evaluation", empty=f"The run has not been evaluated on the test split. {later}")
    return Section(
        "evaluation",
        "Evaluation",
        evaluation_parts.lead(report),
        figures.evaluation(draw, report),
        evaluation_parts.evaluation_tables(report),
        evaluation_parts.examples(report),
    )


def _training(view: RunView, draw: Figures) -> Section:
    lead = "The global adapter on the server's validation split, after every round."
    if view.rounds.empty:
        return Section("training", "Training", empty=NO_ROUND)
    said = lead, sentences.server_learning(view.rounds), sentences.saved(view.rounds)
    lead = " ".join(part for part in said if part)
    return Section("training", "Training", lead, figures.training(draw, view), (run_parts.rounds_table(view),))


def _influence(view: RunView, draw: Figures) -> Section:
    if view.shares.empty:
        return Section("influence", "Influence", empty=NO_ROUND)
    rule = run_parts.weighing(view)
    lead = "How much each client's update counts in the global adapter." + (
        f" Weights: {one_line(rule)}." if rule else ""
    )
    return Section("influence", "Influence", lead, figures.influence(draw, view), _there(run_parts.weights_table(view)))


def _clients(view: RunView, found: RunStatus, now: float) -> Section:
    spent = rounds_table(view), clients_table(view)
    reached = () if view.sites is None else (sites_table(view, now), bytes_table(view))
    tables = _there(run_parts.clients_table(view, found), own_tests_table(view.own_tests), *spent, *reached)
    return Section("clients", "Clients", tables=tables, empty="" if tables else "No client has been heard of yet.")


def _failures(view: RunView, exchange: ExchangeView | None) -> Section:
    tables = run_parts.failures_tables(view, exchange)
    lead = "" if tables else "Every answer of every client counted."
    if view.rounds.empty and not tables:
        lead = "None so far."
    return Section("failures", "Failures and events", lead, tables=(*tables, *_there(run_parts.events_table(view))))


def _audit(view: RunView) -> tuple[Section, ...]:
    """The findings of attacks, where `fccl audit` lies beside the run."""
    if view.audit is None:
        return ()
    lead = one_line(" ".join((AUDIT_LEAD, *closed_lines(view.audit))))
    return (Section("audit", "Audit", lead, tables=audit_tables(view.audit)),)


def _plan(view: RunView) -> tuple[Section, ...]:
    """The plan that was made for the run, beside what it took so far."""
    if view.plan is None:
        return ()
    return (Section("plan", "Plan", tables=(after_table(view.plan, actual_of(view.paths)),)),)


def _data(view: RunView, draw: Figures) -> Section:
    manifest = view.manifest
    if manifest is None:
        return Section("data", "Data", empty="The run's folder holds no manifest of its data.")
    tables = (
        data_parts.sources_table(manifest),
        data_parts.splits_table(manifest),
        *data_parts.topics_tables(manifest),
        *_there(origins_table(manifest)),
    )
    return Section(
        "data", "Data", one_line(data_parts.split_sentence(manifest)), figures.topics(draw, manifest), tables
    )


def _there(*tables: Table | None) -> tuple[Table, ...]:
    return tuple(table for table in tables if table is not None)
