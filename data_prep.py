"""`python data_prep.py` is `fccl prepare`; `python data_prep.py --help` explains the arguments."""

import sys

from fccl.apps.main import door

if __name__ == "__main__":
    sys.exit(door("prepare"))
