"""Colours, dashes and shapes: apart from each other for every reader, on light pages and dark ones."""

import itertools

import numpy as np
import pytest

from fccl.view.charts import palette


def test_clients_differ_by_more_than_colour():
    looks = [(palette.colour(client), tuple(palette.dash(client))) for client in range(28)]
    assert len(set(looks)) == 28
    assert len({(palette.colour(client), palette.shape(client)) for client in range(56)}) == 56


def linear(colour):
    channels = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def luminance(colour):
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("page", ["#ffffff", "#0e1117"])
def test_every_colour_is_seen_on_light_and_dark_pages(page):
    """WCAG 2.2, 1.4.11: graphical objects have a contrast of 3 : 1."""
    for colour in (palette.GLOBAL, *palette.COLOURS, palette.NEUTRAL, palette.GAIN, palette.LOSS):
        light, dark = sorted((luminance(colour), luminance(page)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3, colour


SEVERE = {  # Machado, Oliveira & Fernandes 2009, table of severity 1.0
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(rgb):
    x, y, z = np.cbrt(TO_XYZ @ np.clip(rgb, 0, 1) / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("kind", SEVERE)
def test_colours_stay_apart_for_colour_blind_readers(kind):
    seen = {colour: lab(np.array(SEVERE[kind]) @ linear(colour)) for colour in (palette.GLOBAL, *palette.COLOURS)}
    for one, other in itertools.combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) >= 24, (one, other)
