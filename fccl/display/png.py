"""Pictures as PNG: Vega-Lite specifications, drawn without a browser, a window or a network.

vl_convert is imported inside the function that needs it.
"""

from __future__ import annotations

import struct
import textwrap
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Spec = Mapping[str, Any]
INK = "#222222"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXELS = b"IDAT"
_LABELS = {"labelColor": INK, "titleColor": INK, "titleFontWeight": "normal", "labelFontSize": 11, "titleFontSize": 11}
_CONFIG = {
    "background": "white",
    "padding": 8,
    "font": "Helvetica, Arial, sans-serif",
    "axis": {**_LABELS, "labelLimit": 280, "gridOpacity": 0.5, "titlePadding": 6},
    "legend": {**_LABELS, "labelLimit": 240},
    "title": {"color": INK, "fontSize": 12, "fontWeight": "normal"},
    "text": {"color": INK},
    "view": {"stroke": None},
}


def png(spec: Spec, scale: float) -> bytes:
    """The picture, `scale` pixels to each of the specification's units. The same specification gives the same bytes.

    png({"data": {"values": [{"x": 1}]}, "mark": "point", "encoding": {"x": {"field": "x"}}}, scale=2.0)
    """
    import vl_convert

    return _packed(vl_convert.vegalite_to_png({**spec, "config": _CONFIG}, scale=scale, allowed_base_urls=[]))


def below(text: str, width: int) -> dict[str, Any]:
    """A title that stands below the picture, in lines of at most `width` letters."""
    return {"text": textwrap.wrap(text, width), "orient": "bottom", "anchor": "middle", "fontSize": 11, "offset": 8}


def distinct(names: Iterable[str]) -> list[str]:
    """The names, with spaces after those that stood there before: an axis has one place for each."""
    found: list[str] = []
    for name in names:
        while name in found:
            name += " "
        found.append(name)
    return found


def fixed(domain: Sequence[str], values: Sequence[object]) -> dict[str, Any]:
    """A scale that gives each name of `domain` its value."""
    return {"domain": list(domain), "range": list(values)}


def _packed(picture: bytes) -> bytes:
    """The same picture, its pixels compressed as well as zlib can: a third of the size, or a thirtieth."""
    chunks = list(_chunks(picture))
    pixels = zlib.compress(zlib.decompress(b"".join(body for kind, body in chunks if kind == _PIXELS)), 9)
    head, tail = ([chunk for chunk in chunks if chunk[0] in kinds] for kinds in ((b"IHDR",), (b"IEND",)))
    return _SIGNATURE + b"".join(_chunk(kind, body) for kind, body in [*head, (_PIXELS, pixels), *tail])


def _chunks(picture: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each part of a PNG file: a length, the kind, the content, a checksum."""
    at = len(_SIGNATURE)
    while at < len(picture):
        length, kind = struct.unpack_from(">I4s", picture, at)
        yield kind, picture[at + 8 : at + 8 + length]
        at += 12 + length


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", zlib.crc32(kind + body))
