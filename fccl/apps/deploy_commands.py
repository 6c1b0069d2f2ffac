"""The commands that set up parties on other machines or in containers: their settings and options. Loads nothing
heavy.
"""

from __future__ import annotations

import argparse

from fccl.apps.command import GOES_ON, Command, Option, port, up_to
from fccl.apps.refused import BY_FLOWER
from fccl.presets import GROUPS

_INIT: tuple[Option, ...] = (
    (
        "--sites",
        {"type": up_to(10_000, 1), "metavar": "N", "default": 0, "help": "init: so many sites (default NUM_CLIENTS)"},
    ),
    (
        "--hosts",
        {
            "metavar": "A,B",
            "default": "",
            "help": "init: names and addresses of the server's host, the one that sites are to use first",
        },
    ),
    ("--port", {"type": port, "metavar": "N", "default": 0, "help": "init: the proxy's port (default 8443)"}),
    ("--out", {"metavar": "FOLDER", "default": "", "help": "init: where to (default flower)"}),
    ("--add", {"type": up_to(10_000, 1), "metavar": "N", "default": 0, "help": "init: so many sites more"}),
    ("--renew", {"action": "store_true", "help": "init: a new certificate for the SuperLink, of the same authority"}),
)
_BOTH: tuple[Option, ...] = (
    (
        "--superlink",
        {"metavar": "HOST:PORT", "default": "", "help": "where the SuperLink is (default 127.0.0.1:8000)"},
    ),
    (
        "--bundle",
        {
            "metavar": "FOLDER",
            "default": "",
            "help": "register, run: the folder `server` of fccl flower init: the CA's certificate, the sites' node "
            "keys, the signing keys",
        },
    ),
    (
        "--wait",
        {
            "type": up_to(86_400),
            "metavar": "S",
            "default": None,
            "help": "register, run: so many seconds is a SuperLink waited for that is just starting (default 60)",
        },
    ),
)
FLOWER = Command(
    "run a federation whose clients are sites on other machines, with Flower between them: fccl flower init, register, "
    "run",
    "flower",
    tuple(group for group in GROUPS if group != "client"),
    (
        (
            "action",
            {
                "choices": ("init", "register", "run"),
                "metavar": "init|register|run",
                "help": "make certificates, keys and a folder for each party; make the sites' node keys known to the "
                "SuperLink; give the run to the SuperLink, on its host",
            },
        ),
        *_BOTH,
        (
            "--root-certificates",
            {
                "metavar": "FILE",
                "default": "",
                "help": "run: the CA's certificate, instead of --bundle; without either the way is not encrypted",
            },
        ),
        *GOES_ON,
        *_INIT,
    ),
    refuses=BY_FLOWER,
)
COMPOSE = Command(
    "write docker-compose.yml for a number of clients",
    "compose",
    (),
    (
        (
            "--num-clients",
            {"metavar": "N", "default": argparse.SUPPRESS, "help": "a service for each of so many (default 3)"},
        ),
        (
            "--original-clients",
            {
                "metavar": "I,J",
                "default": argparse.SUPPRESS,
                "help": "no service for these: peers that know only the original files",
            },
        ),
        (
            "--keys",
            {
                "action": "store_true",
                "help": "everybody signs; keys are in KEYS_DIR (default ./keys), made at the first start",
            },
        ),
        (
            "--own-files",
            {
                "action": "store_true",
                "help": "every client has its own files, in ./sites/client_i; the server prepares no shard",
            },
        ),
        (
            "--flower",
            {
                "action": "store_true",
                "help": "docker-compose.flower.yml: a SuperLink behind a proxy, a SuperNode and a worker for each site",
            },
        ),
        (
            "--out",
            {
                "metavar": "FILE",
                "default": "",
                "help": "where to; - prints it (default docker-compose.yml, or docker-compose.flower.yml)",
            },
        ),
    ),
)
