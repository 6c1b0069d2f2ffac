"""Facts about the settings that every command's `--help` needs: their groups, and sets of defaults by name (`PRESET`).

Plain values: the command line loads them without the settings themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BUILTIN_MODEL = "builtin:micro"
MOST_TOKENS = 1024  # of MAX_LENGTH where the model decides

GROUPS = (
    "run",
    "data",
    "model",
    "training",
    "federation",
    "contribution",
    "aggregation",
    "privacy",
    "evaluation",
    "exchange",
    "orchestrator",
    "client",
    "folders",
)
BETWEEN_PROCESSES = ("exchange", "orchestrator", "client")  # groups that a run in one process does not read
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quickstart": {},
    "pretrained": {
        "sft_lr": 2e-4,
        "va_lr": 2e-5,
        "dpo_beta": 0.1,
        "lr_schedule": "linear",
        "max_length": 0,
    },
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


# The settings that people change: those of `--help`; `--help-all` has the others too.
USUAL = frozenset(
    {
        *("model_name", "sft_data", "va_data", "non_iid_alpha", "num_clients", "fed_rounds", "sft_lr", "va_lr"),
        *("contribution_source", "aggregation", "seed", "exchange_dir", "keys_dir", "data_dir", "log_dir"),
    }
)
FEW = 12  # a command with no more settings than this shows them all


def usual_preset(model_name: str) -> str:
    """The preset of a model where nobody names one: the learning rates of the built-in model would ruin any other.

    >>> usual_preset("builtin:micro"), usual_preset("./smollm2")
    ('quickstart', 'pretrained')
    """
    return "quickstart" if model_name == BUILTIN_MODEL else "pretrained"
