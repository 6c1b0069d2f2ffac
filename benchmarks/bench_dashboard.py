"""The work of the dashboard's server for one viewer of a long history.

    python benchmarks/bench_dashboard.py [--clients 200] [--rounds 500] [--looks 5]

Makes the logs of a run with that many clients and rounds, then runs the page's script as Streamlit does, without a
browser, and prints milliseconds, on the clock and of processor time:

1. the logs read for the first time, which `fccl dashboard` begins before anybody looks; 2. the first run of the script
for a viewer, and one that finds nothing new; 3. for every tab, a run after one more round was appended: read, charts
drawn anew, everything serialised (median of `--looks` rounds).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from streamlit.testing.v1 import AppTest  # noqa: E402

from benchmarks.bench_view import History, Took, median, timed  # noqa: E402
from fccl.pages.dashboard.page import TABS  # noqa: E402
from fccl.pages.dashboard.readers import FRESH_S, hub_of  # noqa: E402
from fccl.paths import LogPaths  # noqa: E402


def script(folder: str) -> None:
    from fccl.apps.dashboard_script import page

    page(["--log-dir", folder, "--exchange-dir", f"{folder}/none"])


def looked(page: AppTest) -> Took:
    """One run of the script, some time after the last one. Nothing may go wrong in it."""
    time.sleep(1.2 * FRESH_S)
    took = timed(page.run)
    if page.exception or page.warning:
        raise SystemExit(f"the page failed: {page.exception or page.warning}")
    return took


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--looks", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        history = History(LogPaths(Path(folder)), asked.clients, asked.rounds)
        tabs = [tab for tab in TABS if tab not in ("Methods", "Two runs")]  # these do not grow with the history
        looks = asked.looks * len(tabs)
        for number in range(asked.rounds - looks):
            history.add(number)
        hub = hub_of(Path(folder), Path(folder) / "none")
        print(f"{asked.clients} clients, {asked.rounds} rounds")
        print(f"read for the first time   {timed(hub.run)} of the processor")
        page = AppTest.from_function(script, args=(folder,), default_timeout=600)
        print(f"first run for a viewer    {looked(page)}")
        print(f"nothing new               {looked(page)}")
        number = asked.rounds - looks
        for tab in tabs:
            page.session_state["tab"] = tab
            looked(page)
            took = []
            for _ in range(asked.looks):
                history.add(number)
                number += 1
                took.append(looked(page))
            print(f"one round more, {tab:<10}{median(took)}")


if __name__ == "__main__":
    main()
