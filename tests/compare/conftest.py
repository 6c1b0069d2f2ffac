"""A comparison small enough for a test: the tiny model, a few dozen rows, two topics, one round."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

WORDS = ("bird", "apple", "cherry", "tree", "fruit", "words", "hot", "cold", "red", "old")


@pytest.fixture(scope="session")
def rows_on_disk(tmp_path_factory):
    """The arguments that name 80 instructions and 60 pairs in two topics."""
    folder = tmp_path_factory.mktemp("rows")
    sft = [
        {
            "instruction": f"Say {WORDS[n % 10]} {n}",
            "input": "",
            "output": f"It is {WORDS[n % 10]} and {WORDS[(n + 3) % 10]}.",
            "topic": "ab"[n % 2],
        }
        for n in range(80)
    ]
    va = [
        {
            "prompt": f"Name {WORDS[n % 10]} {n}",
            "chosen": f"It is {WORDS[n % 10]}.",
            "rejected": f"Go away {n}.",
            "topic": "ab"[n % 2],
        }
        for n in range(60)
    ]
    (folder / "sft.json").write_text(json.dumps(sft))
    (folder / "va.json").write_text(json.dumps(va))
    return {"sft_data": str(folder / "sft.json"), "va_data": str(folder / "va.json")}


@pytest.fixture(scope="session")
def tiny_settings(rows_on_disk, tiny_model_path):
    """The settings of a tiny comparison: four clients, one of them bad, two rounds."""
    return rows_on_disk | {
        "model_name": str(tiny_model_path),
        "lora_r": 4,
        "lora_alpha": 8.0,
        "max_length": 128,
        "num_clients": 4,
        "fed_rounds": 2,
        "threads": 1,
        "verify_examples": 4,
        "bootstrap_samples": 200,
    }


@pytest.fixture
def workshop(tiny_settings, tiny_model, tmp_path):
    """Builds a planner and resources over the tiny model in a folder of their own."""
    from fccl.apps.compare import aggregation_of, design, weigher_of
    from fccl.compare.plan import Planner
    from fccl.compare.trial import Resources
    from fccl.config import load_settings
    from fccl.paths import ComparePaths

    def build(folder: Path = tmp_path / "compare", **changes):
        settings = load_settings(tiny_settings | changes)
        paths = ComparePaths(folder)
        planner = Planner(design(settings, tiny_model, 1), paths)
        resources = Resources(paths, tiny_model, partial(weigher_of, settings), partial(aggregation_of, settings))
        return SimpleNamespace(settings=settings, paths=paths, planner=planner, resources=resources)

    return build
