"""Vega-Lite as PNG: the pixels that are asked for, packed as well as they can be, and nothing from the network."""

import io

import pytest
import vl_convert
from PIL import Image, ImageChops

from fccl.display.png import below, distinct, fixed, png

BARS = {
    "data": {"values": [{"who": "a", "much": 3}, {"who": "b", "much": 2}]},
    "mark": "bar",
    "encoding": {"x": {"field": "who"}, "y": {"field": "much", "type": "quantitative"}},
}


def opened(picture):
    with Image.open(io.BytesIO(picture)) as image:
        return image.convert("RGBA")


def test_packing_changes_no_pixel_and_makes_it_smaller(monkeypatch):
    drawn, real = [], vl_convert.vegalite_to_png

    def seen(*arguments, **options):
        drawn.append(real(*arguments, **options))
        return drawn[-1]

    monkeypatch.setattr(vl_convert, "vegalite_to_png", seen)
    packed = png(BARS, 3.0)
    assert len(packed) < len(drawn[0])
    assert opened(packed).size == opened(drawn[0]).size
    assert ImageChops.difference(opened(packed), opened(drawn[0])).getbbox(alpha_only=False) is None


def test_the_same_specification_gives_the_same_bytes():
    assert png(BARS, 1.0) == png(BARS, 1.0)


def test_the_scale_is_pixels_to_a_unit():
    one, two = (opened(png(BARS, scale)).size for scale in (1.0, 2.0))
    assert [2 * side for side in one] == pytest.approx(two, abs=2)


def test_data_from_elsewhere_is_refused():
    with pytest.raises(ValueError, match=r"example\.invalid"):
        png(BARS | {"data": {"url": "http://example.invalid/data.json"}}, 1.0)


def test_names_that_are_alike_get_a_place_each():
    assert distinct(["a", "b", "a", "a ", "a"]) == ["a", "b", "a ", "a  ", "a   "]


def test_a_title_below_is_cut_into_lines():
    assert below("one two three", 8)["text"] == ["one two", "three"]


def test_a_fixed_scale_pairs_names_and_values():
    assert fixed(("a", "b"), (1, 2)) == {"domain": ["a", "b"], "range": [1, 2]}
