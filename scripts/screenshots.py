"""The pictures of the dashboard in the README: a real federation over an exchange directory, seen in a real browser.

    python scripts/screenshots.py docs        (make screenshots)

Writes dashboard.png (in the middle of the run, light), dashboard-finished.png (the evaluation, dark) and
dashboard-phone.png. Takes about two minutes and needs Chromium.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, TimeoutError, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
PATIENCE_MS = 300_000
CLIENTS = 3
MID_RUN = "Round 6 of 6"


@contextmanager
def federation(folder: Path) -> Iterator[str]:
    """The quickstart as processes of their own, and its dashboard; gives the dashboard's address.

    All of them end with the block.
    """
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_WAIT_POLICY": "PASSIVE",
        "OMP_NUM_THREADS": "1",
        "HEARTBEAT_S": "0.5",
    }
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    subprocess.run(
        [sys.executable, "-m", "fccl", "prepare"], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL
    )
    clients = [["client", "--client-id", str(number)] for number in range(CLIENTS)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "fccl", *command],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        for command in (["dashboard", "--port", port], *clients, ["orchestrator"])
    ]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def opened(browser: Browser, url: str, width: int = 1280, height: int = 800, dark: bool = False) -> Page:
    """The page, as soon as the server answers."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", device_scale_factor=1.5
    )
    page = context.new_page()
    for attempt in range(60):
        try:
            page.goto(url)
            page.locator("h1.fccl-sentence").wait_for(timeout=PATIENCE_MS)
            return page
        except TimeoutError:
            raise
        except Exception:  # nobody listens yet
            if attempt == 59:
                raise
            page.wait_for_timeout(1000)
    raise AssertionError("unreachable")


def until(page: Page, words: str) -> None:
    """Wait for the sentence at the top."""
    page.wait_for_function(
        "words => document.querySelector('h1.fccl-sentence')?.textContent.includes(words)",
        arg=words,
        timeout=PATIENCE_MS,
    )


def drawn(page: Page, charts: int) -> None:
    """Wait for so many charts, and for the tables."""
    page.wait_for_function(
        "count => document.querySelectorAll('[data-testid=stVegaLiteChart] svg').length >= count",
        arg=charts,
        timeout=PATIENCE_MS,
    )
    page.wait_for_timeout(1500)  # what fades in


def main(out: Path) -> None:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        sys.exit("no Chromium: install the package chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright, federation(Path(folder)) as url:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        page = opened(browser, url)
        until(page, MID_RUN)
        page.wait_for_function(
            "() => /[12] of 3/.test(document.querySelector('.st-key-tiles').textContent)", timeout=PATIENCE_MS
        )
        drawn(page, 4)
        page.screenshot(path=out / "dashboard.png")
        until(page, "Finished")
        page.wait_for_function(
            "() => document.querySelector('h1').textContent.endsWith('complete.')", timeout=PATIENCE_MS
        )
        phone = opened(browser, url, 390, 844)
        drawn(phone, 4)
        phone.screenshot(path=out / "dashboard-phone.png")
        dark = opened(browser, f"{url}/?tab=Evaluation", dark=True)
        drawn(dark, 3)
        dark.screenshot(path=out / "dashboard-finished.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
