"""Reads a chart's specification: its rows, its encodings, its words."""

import pandas as pd


def rows_of(spec):
    return [row for name, rows in spec["datasets"].items() for row in rows]


def all_data(spec, field):
    """The first data set of a chart that has the field."""
    return pd.DataFrame(next(rows for rows in spec["datasets"].values() if rows and field in rows[0]))


def encodings(spec):
    return [layer["encoding"] for layer in spec.get("layer", [spec])]


def wording(spec):
    return " ".join([spec["title"]["text"], *spec["title"].get("subtitle", [])])
