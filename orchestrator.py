"""`python orchestrator.py` is `fccl orchestrator`; `python orchestrator.py --help` explains the arguments."""

import sys

from fccl.apps.main import door

if __name__ == "__main__":
    sys.exit(door("orchestrator"))
