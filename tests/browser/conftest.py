"""A real Chromium, real dashboards, and real federations to look at."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, Page, TimeoutError, sync_playwright

ROOT = Path(__file__).resolve().parent.parent.parent
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE_S = 120.0  # for a state of the page; a busy machine is slow
CLICKS = 6  # on a tab, within that time
FETCH_RETRIES = (
    5  # the server closes a connection that was idle for five seconds, sometimes just when Playwright uses it again
)
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@dataclass
class Processes:
    """Commands of `fccl` in one folder, each with a process group of its own; none survives the test."""

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        own = {"PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
        log = open(self.folder / f"{len(self.started)}-{arguments[0]}.log", "wb")  # noqa: SIM115
        with log:
            process = subprocess.Popen(
                [sys.executable, "-m", "fccl", *arguments],
                cwd=self.folder,
                env=os.environ | own | self.settings,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def finished(self, *arguments: str) -> None:
        """Run a command to its end."""
        assert self.start(*arguments).wait(timeout=300) == 0, self.said()

    def halt(self, process: subprocess.Popen[bytes], after: Path) -> None:
        """Stop a process once this file is there, until `go_on`."""
        until = time.monotonic() + PATIENCE_S
        while not after.exists():
            assert time.monotonic() < until, f"{after.name} has not come\n{self.said()}"
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGSTOP)

    def go_on(self, process: subprocess.Popen[bytes]) -> None:
        """Let a halted process go on."""
        os.kill(process.pid, signal.SIGCONT)

    def said(self) -> str:
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in sorted(self.folder.glob("*.log"))
        )

    def stop(self) -> None:
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def dashboard(self) -> str:
        """Serve the page of this folder; returns its address."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = self.start("dashboard", "--port", str(port))
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            assert process.poll() is None, self.said()
            try:
                urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=5).close()
                return f"http://127.0.0.1:{port}"
            except OSError:  # not there yet, or busy
                time.sleep(0.2)
        raise AssertionError(self.said())


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """In a folder of their own."""
    processes = Processes(tmp_path)
    try:
        yield processes
    finally:
        processes.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium; Playwright's own is never downloaded."""
    path = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    if path is None:
        pytest.fail("no Chromium: install the package chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """A page, and what went wrong on it."""

    page: Page
    wrong: list[str] = field(default_factory=list)
    news: int = 0  # messages of the server so far

    def note(self, what: str) -> None:
        """Something is wrong, unless the machine's network has changed: then Chromium drops its connections, and
        Streamlit connects again.
        """
        if "ERR_NETWORK_CHANGED" not in what:
            self.wrong.append(what)

    @property
    def sentence(self) -> str:
        return self.page.locator("h1.fccl-sentence").inner_text()

    def until(self, script: str, argument: object = None, patience_s: float = PATIENCE_S) -> None:
        """Wait until a script in the page is true."""
        try:
            self.page.wait_for_function(script, arg=argument, timeout=1000 * patience_s)
        except TimeoutError:
            raise AssertionError(
                f"in vain: {script} {argument}; the page says: {self.page.inner_text('body')[:500]}"
            ) from None

    def until_news(self, messages: int) -> None:
        """Wait until the server has sent so many messages more."""
        wanted, until = self.news + messages, time.monotonic() + PATIENCE_S
        while self.news < wanted:
            assert time.monotonic() < until, "the server has fallen silent"
            self.page.wait_for_timeout(100)

    def heard(self, _: object) -> None:
        self.news += 1

    def until_sentence(self, words: str, patience_s: float = PATIENCE_S) -> None:
        """Wait until the sentence at the top contains these words."""
        self.until(
            "words => document.querySelector('h1.fccl-sentence')?.textContent.includes(words)", words, patience_s
        )

    def until_words(self, selector: str, words: str) -> None:
        """Wait until an element of this kind has these words in it."""
        self.until(
            "([selector, words]) => [...document.querySelectorAll(selector)].some(each => each.textContent.includes(words))",
            [selector, words],
        )

    def until_cell(self, table: str, row: int, text: str) -> None:
        """Wait until a row of a table has a cell with this text.

        Tables are drawn; these cells are what a screen reader is given.
        """
        self.until(
            "([table, row, text]) => [...document.querySelectorAll(`[aria-label='${table}'] "
            "[role=row][aria-rowindex='${row + 2}'] [role=gridcell]`)]"
            ".some(cell => cell.textContent === text)",
            [table, row, text],
        )

    def open(self, tab: str) -> None:
        """Choose a tab and wait for what is on it.

        A click that falls into a rerun of the page can be lost, as a person's can: it is made again.
        """
        shown = self.page.get_by_role("tabpanel", name=tab, exact=True).locator("p, h2, canvas, code").first
        for left in reversed(range(CLICKS)):
            self.page.get_by_role("tab", name=tab, exact=True).click()
            try:
                shown.wait_for(timeout=1000 * PATIENCE_S / CLICKS)
                return
            except TimeoutError:
                if not left:
                    raise


@pytest.fixture
def visit(browser: Browser) -> Iterator[object]:
    """`visit(url, width=…, …)` opens the page; at the end nothing may have gone wrong on it.

    Scripts and styles reach the browser through Playwright, since Chromium gives a download up when a network of the
    machine comes or goes.
    """
    visits: list[Visit] = []

    def visit(url: str, width: int = 1280, height: int = 800, **options: object) -> Visit:
        page = browser.new_context(viewport={"width": width, "height": height}, **options).new_page()  # type: ignore[arg-type]
        page.set_default_timeout(1000 * PATIENCE_S)
        visits.append(seen := Visit(page))
        page.route("**/static/**", lambda route: route.fulfill(response=route.fetch(max_retries=FETCH_RETRIES)))
        page.on("console", lambda message: seen.note(f"console: {message.text}") if message.type == "error" else None)
        page.on("pageerror", lambda error: seen.note(f"error: {error}"))
        page.on("requestfailed", lambda request: seen.note(f"failed: {request.url} {request.failure}"))
        page.on("request", lambda request: seen.note(f"abroad: {request.url}") if abroad(request.url) else None)
        page.on("dialog", lambda dialog: seen.note(f"dialog: {dialog.message}"))
        page.on("websocket", lambda socket: socket.on("framereceived", seen.heard))
        page.goto(url)
        page.locator("h1.fccl-sentence").wait_for(timeout=1000 * PATIENCE_S)
        return seen

    yield visit
    wrong = [line for each in visits for line in each.wrong]
    for each in visits:
        each.page.unroute_all(behavior="ignoreErrors")
        each.page.context.close()
    assert wrong == []


def abroad(url: str) -> bool:
    return not url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:"))
