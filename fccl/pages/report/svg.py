"""A chart as SVG to stand inside a page: no script, no link, no font, names of its own, in the page's colours."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import vl_convert
from markupsafe import Markup

from fccl.view.charts import Picture

INK = "currentColor"
FONT = "Helvetica, Arial, sans-serif"
_AXIS = {
    "labelColor": INK,
    "labelOpacity": 0.8,
    "titleColor": INK,
    "titleFontWeight": "normal",
    "titlePadding": 8,
    "gridColor": INK,
    "gridOpacity": 0.12,
    "domainColor": INK,
    "domainOpacity": 0.4,
    "tickColor": INK,
    "tickOpacity": 0.4,
    "labelFontSize": 11,
    "titleFontSize": 11,
}
CONFIG = {
    "aria": False,  # the picture as a whole has a name; its thousands of marks need no names
    "background": None,
    "font": FONT,
    "axis": _AXIS,
    "legend": {
        "labelColor": INK,
        "titleColor": INK,
        "titleFontWeight": "normal",
        "labelFontSize": 11,
        "titleFontSize": 11,
    },
    "text": {"color": INK, "fontSize": 11},
    "view": {"stroke": None},
}
NAMESPACE = "http://www.w3.org/2000/svg"
_DRAWN = frozenset(
    {"svg", "g", "path", "line", "rect", "circle", "text", "tspan", "defs", "clipPath", "linearGradient", "stop"}
)
_NEEDLESS = frozenset({"role", "class", "style", "href", "version", "font-family", "pointer-events"})
_FRACTION = re.compile(r"\d+[.]\d{3,}")
_LINK = re.compile(r"url\(#([^)]*)\)")


def to_svg(chart: Picture, width: int, name: str, says: str) -> Markup:
    """The chart `width` pixels wide, without its title.

    `name` keeps its ids apart from other charts'; `says` is read to those who do not see it.
    """
    spec: dict[str, Any] = chart.to_dict(validate=False)
    spec.pop("title", None)
    spec |= {"width": width, "autosize": {"type": "fit-x", "contains": "padding"}, "config": CONFIG, "padding": 2}
    return cleaned(vl_convert.vegalite_to_svg(spec, allowed_base_urls=[]), name, says)


def cleaned(drawing: str, name: str, says: str) -> Markup:
    """An SVG document as an element of a page: only what is drawn, ids that begin with `name`, and `says` as
    its title."""
    root = ElementTree.fromstring(drawing)
    _clean(root, name)
    width, height = (float(root.attrib.pop(side)) for side in ("width", "height"))
    root.set("viewBox", f"0 0 {width:g} {height:g}")
    root.set("style", f"max-width:{width:g}px")
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title")
    title = ElementTree.Element("title", {"id": f"{name}-title"})
    title.text = says
    root.insert(0, title)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _clean(element: ElementTree.Element, name: str) -> None:
    """Drop everything that is not a drawing, and the namespace, which HTML does not need."""
    element.tag = element.tag.removeprefix(f"{{{NAMESPACE}}}")
    if "mark-rect" in element.get("class", ""):
        element.set("shape-rendering", "crispEdges")  # else the page shines through between two cells
    for key in list(element.attrib):
        value = element.attrib[key]
        if key.startswith(("aria-", "on", "{")) or key in _NEEDLESS:
            del element.attrib[key]
        elif key == "id":
            element.attrib[key] = f"{name}-{value}"
        else:
            short = _FRACTION.sub(lambda found: f"{float(found[0]):.2f}", value)
            element.attrib[key] = _LINK.sub(rf"url(#{name}-\1)", short)
    for child in list(element):
        if child.tag.removeprefix(f"{{{NAMESPACE}}}") in _DRAWN:
            _clean(child, name)
        else:
            element.remove(child)
