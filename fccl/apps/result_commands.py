"""The commands that read what a run has made: which settings and options each has. Loads nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from fccl.apps.command import Command, port, up_to

_MOST_EXAMPLES, _MOST_CLIENT = 999_999_999, 999_999_998

RESULTS: Mapping[str, Command] = {
    "evaluate": Command(
        "evaluate base, SFT and FedVA on the test split",
        "evaluate",
        ("evaluation", "folders"),
        (
            (
                "--sft",
                {
                    "type": up_to(_MOST_EXAMPLES),
                    "metavar": "N",
                    "default": 0,
                    "help": "use at most N test instructions; 0 takes all (default 0)",
                },
            ),
            (
                "--va",
                {
                    "type": up_to(_MOST_EXAMPLES),
                    "metavar": "N",
                    "default": 0,
                    "help": "use at most N test pairs; 0 takes all (default 0)",
                },
            ),
            (
                "--per-client",
                {
                    "action": "store_true",
                    "help": "also evaluate each client's own last update, and the global one on each client's topics",
                },
            ),
            ("--skip-base", {"action": "store_true", "help": "leave the base model out"}),
            (
                "--client-processes",
                {
                    "metavar": "N",
                    "default": argparse.SUPPRESS,
                    "help": "evaluate so many models side by side; 0: as many as cores and memory allow (default 0)",
                },
            ),
            (
                "--tasks",
                {
                    "metavar": "A,B",
                    "default": "",
                    "help": "tasks of lm-evaluation-harness too, such as hellaswag (needs the extra lm-eval)",
                },
            ),
            (
                "--tasks-path",
                {"metavar": "FOLDER", "default": "", "help": "task files of your own; they may hold code that is run"},
            ),
            (
                "--tasks-chat",
                {
                    "action": "store_true",
                    "help": "write the prompts of tasks by the model's chat template, examples in them as turns",
                },
            ),
            (
                "--limit",
                {
                    "type": up_to(_MOST_EXAMPLES),
                    "metavar": "N",
                    "default": 0,
                    "help": "use at most N examples of each task; 0 takes all (default 0)",
                },
            ),
            (
                "--outputs-file",
                {
                    "metavar": "FILE",
                    "default": "",
                    "help": "write each model's answers in AlpacaEval's form: a.json gives a.base.json, a.SFT.json ...",
                },
            ),
            (
                "--write-tasks",
                {
                    "metavar": "FOLDER",
                    "default": "",
                    "help": "write the test split as two tasks of lm-evaluation-harness, for any other model",
                },
            ),
        ),
    ),
    "chat": Command(
        "one prompt, the answers of base, SFT and FedVA side by side; without a prompt it reads them line by line",
        "chat",
        ("evaluation", "folders"),
        (
            ("prompt", {"metavar": "[PROMPT]", "nargs": "?", "default": "", "help": "the instruction to answer"}),
            (
                "--sample",
                {"action": "store_true", "help": "draw the answers at GEN_TEMPERATURE (default: the likeliest tokens)"},
            ),
        ),
        only=("gen_tokens", "gen_temperature", "log_dir"),
    ),
    "dashboard": Command(
        "show the run in LOG_DIR, and earlier ones, in the browser; it reads and never writes",
        "dashboard",
        (),
        (
            (
                "--log-dir",
                {"metavar": "FOLDER", "default": argparse.SUPPRESS, "help": "the run's records (default logs)"},
            ),
            (
                "--exchange-dir",
                {
                    "metavar": "FOLDER",
                    "default": argparse.SUPPRESS,
                    "help": "the exchange directory, if there is one (default exchange)",
                },
            ),
            (
                "--host",
                {
                    "metavar": "ADDRESS",
                    "default": "127.0.0.1",
                    "help": "where to listen (default 127.0.0.1: this machine alone)",
                },
            ),
            ("--port", {"type": port, "metavar": "N", "default": 8501, "help": "the port (default 8501)"}),
        ),
    ),
    "report": Command(
        "write a run as one HTML file that needs no network: to send, to print, to keep",
        "report",
        (),
        (
            (
                "out",
                {
                    "metavar": "[OUT.html]",
                    "nargs": "?",
                    "default": "",
                    "help": "where to (default LOG_DIR/report.html)",
                },
            ),
            (
                "--run",
                {"metavar": "ID", "default": "", "help": "an earlier run, by its id (default the one in LOG_DIR)"},
            ),
            (
                "--log-dir",
                {"metavar": "FOLDER", "default": argparse.SUPPRESS, "help": "the runs' records (default logs)"},
            ),
            (
                "--exchange-dir",
                {
                    "metavar": "FOLDER",
                    "default": argparse.SUPPRESS,
                    "help": "the exchange directory, if there is one (default exchange)",
                },
            ),
        ),
    ),
    "privacy": Command(
        "the privacy that a run has spent, by round and client; with --client-id one client's own ledger",
        "privacy",
        ("privacy", "client", "folders"),
        (
            (
                "--client-id",
                {
                    "metavar": "K",
                    "default": argparse.SUPPRESS,
                    "help": "the ledger of this client in STATE_DIR, over all runs (default: that of the run in "
                    "LOG_DIR, of all clients)",
                },
            ),
        ),
        only=("log_dir", "state_dir", "dp_delta"),
    ),
    "export": Command(
        "write the final adapter, with --merge a plain model folder, with --base the base model as one",
        "export",
        ("folders",),
        (
            ("out", {"metavar": "FOLDER", "help": "where to; it must not exist yet"}),
            (
                "--merge",
                {
                    "action": "store_true",
                    "help": "fold the adapter into the base model: a folder that transformers loads without PEFT",
                },
            ),
            (
                "--base",
                {"action": "store_true", "help": "the base model alone, for whoever loads the adapter without FCCL"},
            ),
            (
                "--phase",
                {
                    "choices": ("sft", "va"),
                    "default": None,
                    "help": "the adapter after which phase (default va; of a personal one the last that it has)",
                },
            ),
            (
                "--personal",
                {
                    "type": up_to(_MOST_CLIENT),
                    "metavar": "K",
                    "default": None,
                    "help": "client K's personal adapter, from its folder in STATE_DIR: needs no LOG_DIR",
                },
            ),
            ("--run", {"metavar": "ID", "default": "", "help": "with --personal: of this run (default the last one)"}),
            (
                "--state-dir",
                {"metavar": "FOLDER", "default": argparse.SUPPRESS, "help": "the clients' folders (default state)"},
            ),
        ),
    ),
}
