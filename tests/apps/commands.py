"""Commands of the package as processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def start(folder, *arguments, **variables):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"} | variables
    return subprocess.Popen(
        [sys.executable, "-m", "fccl", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process, seconds=300):
    """Its exit status and all it said."""
    output, _ = process.communicate(timeout=seconds)
    return process.returncode, output
