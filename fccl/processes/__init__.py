"""Processes that work for this one: `pool.py` is this process's side, `child.py` theirs."""
