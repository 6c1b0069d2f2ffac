"""`streamlit run dashboard.py` is `fccl dashboard`, and so is `python dashboard.py`; `-- --help` explains the
arguments.
"""

import sys

from streamlit.runtime import exists

from fccl.apps.dashboard_script import page
from fccl.apps.main import door

if __name__ == "__main__":
    page(sys.argv[1:]) if exists() else sys.exit(door("dashboard"))
