"""What `fccl compare` has found, where its results lie beside the run."""

from __future__ import annotations

from dataclasses import replace

from fccl.apps.compare_page import scenario_table
from fccl.apps.report_page.figures import Figures, gaps
from fccl.apps.report_page.parts import Section
from fccl.compare import tables
from fccl.comparison import Comparison
from fccl.plain_text import one_line


def section(comparison: Comparison, draw: Figures) -> Section:
    """All scenarios beside each other, the gaps that are closed, and a table for every scenario."""
    lead = f"Made by “fccl compare”, apart from this run. {' '.join(tables.lead(comparison))}"
    matrix = replace(scenario_table(tables.matrix(comparison)), note=" ".join(tables.notes(comparison)))
    scenarios = (scenario_table(tables.without_empty_columns(table)) for table in tables.scenario_tables(comparison))
    return Section("methods", "Comparison of methods", one_line(lead), gaps(draw, comparison), (matrix, *scenarios))
