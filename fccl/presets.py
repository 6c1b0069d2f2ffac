"""Facts about the settings that every command's `--help` needs: their groups, and sets of defaults by name (`PRESET`).

Plain values: the command line loads them without the settings themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

GROUPS = (
    "run",
    "data",
    "model",
    "training",
    "federation",
    "contribution",
    "aggregation",
    "evaluation",
    "exchange",
    "folders",
)
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quickstart": {},
    "gpt2": {
        "model_name": "gpt2",
        "sft_data": "tatsu-lab/alpaca",
        "va_data": "openbmb/UltraFeedback",
        "lora_r": 8,
        "lora_alpha": 16.0,
        "lora_targets": "auto",
        "max_length": 512,
        "batch_size": 8,
        "lr_schedule": "linear",
        "dpo_beta": 0.1,
        "sft_lr": 3e-4,
        "va_lr": 5e-5,
        "max_sft_examples": 12_000,
        "max_va_examples": 6_000,
        "test_examples": 500,
        "learn_examples": 64,
        "validation_examples": 64,
        "gen_tokens": 64,
    },
}
