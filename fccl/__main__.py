"""`python -m fccl` is `fccl`."""

import sys

from fccl.apps.main import main

if __name__ == "__main__":
    sys.exit(main())
