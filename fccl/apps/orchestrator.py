"""`fccl orchestrator`: a federation whose clients are other processes, over an exchange directory."""

from __future__ import annotations

import argparse

from fccl.apps.orchestration import orchestrate
from fccl.config import Settings
from fccl.library.orchestrator import awaited, exchange_transport


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Run, or go on with the run that is here; then evaluate. Returns the exit status."""
    return orchestrate(settings, options, exchange_transport, awaited)
