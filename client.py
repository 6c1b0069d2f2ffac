"""`python client.py` is `fccl client`; `python client.py --help` explains the arguments."""

import sys

from fccl.apps.main import door

if __name__ == "__main__":
    sys.exit(door("client"))
