"""The commands that ask about a finished run: which settings and options each has. Loads nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from fccl.apps.command import Command, Option, up_to

_MOST_CLIENT, _MOST_ROUND, _MOST_ORDERS = 999_999_998, 999_999_999, 100_000
_RUN: Option = (
    "run",
    {
        "metavar": "[RUN]",
        "nargs": "?",
        "default": "",
        "help": "the id of a run in LOG_DIR, or the folder of one (default: the run in LOG_DIR)",
    },
)
_CHOOSING = ("contribution_source", "aggregation")  # settings that may name a class of somebody's own

AFTER: Mapping[str, Command] = {
    "replay": Command(
        "aggregate a finished run again from its kept updates, by other rules or without a client; nobody trains",
        "replay",
        ("contribution", "aggregation", "folders"),
        (
            _RUN,
            (
                "--without-client",
                {
                    "type": up_to(_MOST_CLIENT),
                    "metavar": "K",
                    "action": "append",
                    "default": [],
                    "help": "leave this client out; may be given again",
                },
            ),
            (
                "--by-round",
                {
                    "action": "store_true",
                    "help": "each round from the adapter that it began with in the run, instead of one after another",
                },
            ),
            (
                "--retrain",
                {
                    "type": up_to(_MOST_ROUND),
                    "metavar": "ROUND",
                    "default": None,
                    "help": "train anew from this round on, in this process (the first is 1)",
                },
            ),
            (
                "--matrix",
                {
                    "action": "store_true",
                    "help": "whose update helps on whose held-out examples (of data with --client-test-share)",
                },
            ),
            ("--influence", {"action": "store_true", "help": "how much each client matters for the final model"}),
            (
                "--orders",
                {
                    "type": up_to(_MOST_ORDERS, least=1),
                    "metavar": "N",
                    "default": 0,
                    "help": "with --influence: draw so many orders of clients (default: all sets of few clients)",
                },
            ),
            (
                "--evaluate",
                {
                    "action": "store_true",
                    "default": argparse.SUPPRESS,
                    "help": "also the run's final adapter and the replay's on the test split",
                },
            ),
            ("--out", {"metavar": "FOLDER", "default": "", "help": "where to (default LOG_DIR/after/<run id>/...)"}),
        ),
        without=("client_lora_r",),
    ),
    "verify": Command(
        "check a finished run's result: hashes, seal, settings, signatures, every kept round made again",
        "verify",
        ("contribution", "aggregation", "exchange", "folders"),
        (
            _RUN,
            ("--out", {"metavar": "FOLDER", "default": "", "help": "where to (default LOG_DIR/after/<run id>)"}),
        ),
        only=("log_dir", "keys_dir", *_CHOOSING),
    ),
    "forget": Command(
        "take a client out of a finished run: train anew without it, measure what is left, remove its files",
        "forget",
        ("contribution", "aggregation", "folders"),
        (
            _RUN,
            ("--client", {"type": up_to(_MOST_CLIENT), "metavar": "K", "required": True, "help": "the client"}),
            ("--predict", {"action": "store_true", "help": "only say what would be trained, and how long it takes"}),
            ("--yes", {"action": "store_true", "help": "remove its files without asking; needed without a terminal"}),
        ),
        only=("data_dir", "log_dir", *_CHOOSING),
    ),
}
