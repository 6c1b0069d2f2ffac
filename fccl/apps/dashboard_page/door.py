"""The script that `fccl dashboard` gives to Streamlit, which runs it anew whenever something changes."""

import sys

from fccl.apps.dashboard_page.page import show

show(sys.argv[1:])
