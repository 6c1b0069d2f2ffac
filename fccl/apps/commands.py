"""The commands: which settings and options each has, and which app does the work. Loads nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from fccl.apps.after_commands import AFTER
from fccl.apps.command import GOES_ON, REDO_VA, Command, Option, up_to
from fccl.apps.deploy_commands import COMPOSE, FLOWER
from fccl.apps.refused import BY_COMPARE, BY_ORCHESTRATOR
from fccl.apps.result_commands import RESULTS
from fccl.presets import BETWEEN_PROCESSES, GROUPS

_IN_PROCESS = tuple(group for group in GROUPS if group not in BETWEEN_PROCESSES)
_COMPARED = tuple(group for group in _IN_PROCESS if group != "privacy")
_OF_RUNS = ("threads", "evaluate", "track")
_OF_ROUNDS = (
    *("clients_per_round", "min_clients", "max_update_ratio", "keep_updates_mb"),
    *("fed_rounds", "sft_rounds", "va_rounds", "patience", "result_round", "late_updates"),
    *("update_codec", "topk_share"),
)

_OWN_FILES: tuple[Option, ...] = (
    (
        "--sft-data",
        {
            "metavar": "FILE",
            "default": argparse.SUPPRESS,
            "help": "the client's own instructions, which nobody else sees, in the place of a shard in DATA_DIR",
        },
    ),
    (
        "--va-data",
        {
            "metavar": "FILE",
            "default": argparse.SUPPRESS,
            "help": "the client's own preference pairs, or synthetic: made from its instructions",
        },
    ),
    (
        "--skip-bad-rows",
        {
            "action": argparse.BooleanOptionalAction,
            "default": argparse.SUPPRESS,
            "help": "leave malformed rows of these files out, instead of stopping",
        },
    ),
    (
        "--client-test-share",
        {
            "metavar": "X",
            "default": argparse.SUPPRESS,
            "help": "share of these files that the client keeps apart for its own test (default 0.1)",
        },
    ),
)

COMMANDS: Mapping[str, Command] = {
    "init": Command(
        "ask five questions, check the answers, and write a commented .env",
        "init",
        ("data", "model", "federation"),
        (
            (
                "--machine",
                {"metavar": "X", "default": None, "help": "where clients run: here (default) or apart"},
            ),
            (
                "--privacy",
                {
                    "metavar": "X,Y",
                    "default": None,
                    "help": "signed, forget (no update is kept), no-texts (none of the test split in the report) "
                    "(default none)",
                },
            ),
            ("--out", {"metavar": "FILE", "default": ".env", "help": "where to (default .env)"}),
            ("--replace", {"action": "store_true", "help": "replace a file that is there"}),
        ),
        only=("model_name", "sft_data", "va_data", "num_clients"),
    ),
    "prepare": Command(
        "read the data, split it, and cut a shard for every client",
        "prepare",
        ("run", "data", "federation", "folders"),
        (
            (
                "--keep",
                {
                    "action": "store_true",
                    "help": "leave data that these settings have made as it is, and refuse to replace any other",
                },
            ),
        ),
        without=(*_OF_RUNS, *_OF_ROUNDS),
    ),
    "plan": Command(
        "say before a run what it will take, by a probe of a few steps: time, memory, disk; "
        "ends with 1 where something will not fit",
        "plan",
        _IN_PROCESS,
        (
            (
                "--after",
                {
                    "metavar": "ID",
                    "nargs": "?",
                    "const": "LOG_DIR",
                    "default": None,
                    "help": "hold the plan against the run that it was made for: the one in LOG_DIR, or an earlier "
                    "one by its id",
                },
            ),
        ),
    ),
    "run": Command(
        "run a federation, clients side by side (--client-processes): FedIT rounds, FedVA rounds, the evaluation",
        "run",
        _IN_PROCESS,
        (
            (
                "--resume",
                {
                    "action": "store_true",
                    "help": "go on from the last complete round, with the settings that the run was started with; "
                    "with --va-rounds, --sft-rounds or --fed-rounds it has so many in all, those done included",
                },
            ),
            REDO_VA,
            (
                "--state-dir",
                {
                    "metavar": "FOLDER",
                    "default": argparse.SUPPRESS,
                    "help": "private folders of the clients: where they add noise, their secrets and ledgers "
                    "(default state)",
                },
            ),
            (
                "--min-shard",
                {
                    "metavar": "N",
                    "default": argparse.SUPPRESS,
                    "help": "a client with fewer examples of a phase declines it (default 0)",
                },
            ),
        ),
    ),
    "orchestrator": Command(
        "run a federation whose clients are other processes, over an exchange directory",
        "orchestrator",
        tuple(group for group in GROUPS if group != "client"),
        GOES_ON,
        refuses=BY_ORCHESTRATOR,
    ),
    "client": Command(
        "one client of such a federation: trains on its own shard until the run is done",
        "client",
        ("privacy", "exchange", "client", "folders"),
        (
            (
                "--client-lora-r",
                {
                    "metavar": "R",
                    "default": argparse.SUPPRESS,
                    "help": "directions that this client trains (default: the federation's)",
                },
            ),
            *_OWN_FILES,
            (
                "--min-clients",
                {
                    "metavar": "N",
                    "default": argparse.SUPPRESS,
                    "help": "mask for no sum of fewer clients, whatever the orchestrator asks for (default 2)",
                },
            ),
            (
                "--leave",
                {
                    "action": "store_true",
                    "help": "leave the run, where the orchestrator is --open: say so and end, in the place of training",
                },
            ),
        ),
        without=("log_dir", "client_sampling", "dp_clip_quantile", "secure_clip", "secure_max_samples"),
    ),
    "flower": FLOWER,
    "keys": Command(
        "make keys for an orchestrator and its clients, so that they believe nobody else",
        "keys",
        ("federation", "exchange"),
        (
            (
                "--add",
                {"type": up_to(100_000), "metavar": "N", "default": 0, "help": "keys for so many clients more"},
            ),
            (
                "--revoke",
                {
                    "metavar": "I,J",
                    "default": "",
                    "help": "revoke the keys of these clients: the server believes them no more, from now on",
                },
            ),
        ),
        only=("num_clients", "keys_dir"),
    ),
    "compose": COMPOSE,
    "compare": Command(
        "compare FedAvg, FCCL, robust rules and an oracle in the same scenarios, with intervals; goes on where it "
        "was stopped",
        "compare",
        _COMPARED,
        (
            (
                "--quick",
                {
                    "action": "store_true",
                    "help": "what matters most, less data, two seeds: within 6 minutes on two cores",
                },
            ),
            (
                "--set",
                {
                    "choices": ("evidence",),
                    "default": "",
                    "help": "the set that the claim rests on, fixed in the program: scenarios, methods, seeds, at most "
                    "12 hours of two cores; says before what it will cost",
                },
            ),
            (
                "--until-flat",
                {
                    "action": "store_true",
                    "help": "every scenario a second time, with as many rounds as FedAvg of its honest clients needs "
                    "to stop gaining",
                },
            ),
            (
                "--scenarios",
                {
                    "metavar": "A,B",
                    "default": "",
                    "help": "only these scenarios (default all; an unknown name lists them)",
                },
            ),
            (
                "--methods",
                {
                    "metavar": "X,Y",
                    "default": "",
                    "help": "only these methods, and FedAvg (default all; an unknown name lists them); fedadam@0.1 "
                    "is one with its knob at that value; package.module:Class puts a rule of your own beside them",
                },
            ),
            (
                "--seeds",
                {
                    "type": up_to(1000),
                    "metavar": "N",
                    "default": 0,
                    "help": "so many seeds: SEED, SEED + 1, ... (default 5, with --quick 2)",
                },
            ),
            (
                "--agreement",
                {
                    "action": "store_true",
                    "help": "also hold every round's weights against exact Shapley values (at most 8 clients; costly)",
                },
            ),
            (
                "--tune",
                {
                    "action": "store_true",
                    "help": "try the values of the methods' knobs on seeds of their own; the validation split judges",
                },
            ),
            (
                "--jobs",
                {
                    "type": up_to(1024),
                    "metavar": "N",
                    "default": 0,
                    "help": "processes, each with one thread (default one a core, at most 8)",
                },
            ),
            (
                "--tables-only",
                {
                    "action": "store_true",
                    "help": "run nothing: tables and pictures of what is finished, whole scenarios of a seed",
                },
            ),
            ("--out", {"metavar": "FOLDER", "default": "", "help": "where to (default LOG_DIR/compare)"}),
        ),
        refuses=BY_COMPARE,
    ),
    "audit": Command(
        "attack a federation of its own, with canaries in one client's data: what updates and adapter give away",
        "audit",
        _IN_PROCESS,
        (
            (
                "--client",
                {
                    "type": up_to(999_999_999),
                    "metavar": "I",
                    "default": None,
                    "help": "whose data is audited (default the client with most instructions)",
                },
            ),
            (
                "--beside",
                {
                    "metavar": "NAME=VALUE,...",
                    "action": "append",
                    "default": [],
                    "help": "one federation more, with these protections, in the same table: update-codec=int8, or "
                    "dp-where=client,dp-clip=0.5; may be given again",
                },
            ),
            (
                "--forget",
                {
                    "action": "store_true",
                    "help": "also take the client out, as `fccl forget` does, and attack what is left of it",
                },
            ),
        ),
    ),
    **RESULTS,
    **AFTER,
}
