"""A report as one HTML file that needs nothing else: no script, no network, no font."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from fccl.display.plain_text import visible
from fccl.pages.report.parts import Report


def render(report: Report) -> str:
    """The file. Every text in the report is escaped."""
    here = files(__package__)
    style = Markup((here / "report.css").read_text(encoding="utf-8"))
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=_visible, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["glued"] = _glued
    template = environment.from_string((here / "report.html").read_text(encoding="utf-8"))
    return template.render(report=report, style=style)


def _glued(text: str) -> str:
    """A figure and its unit stay on one line."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%").replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")


def _visible(value: object) -> object:
    """Text with every sign to be seen; markup is left as it is."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
