"""On a terminal no sign of the data, of a name or of another process's text is a command: tried at a real
pseudo-terminal of 60 columns.
"""

import json
import os
import re
import subprocess
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from fccl.apps.client_screen import ClientScreen
from fccl.apps.console import PlainConsole, say
from fccl.apps.main import main
from fccl.apps.progress import answer_line
from fccl.messages import ClientFailure
from tests.examples import few

ROOT = Path(__file__).resolve().parents[2]
OWN = re.compile(
    r"\x1b\[[\d;]*m|\x1b\[\d*[AGK]|\x1b\[2K|\x1b\[\?25[lh]"
)  # colours, lines cleared, the cursor hidden: rich's bars
# Commands that no screen of ours gives: each would be seen among those of rich.
HOSTILE = "[/x] \x1b[2J\x1b[5;7mriver\x1b]0;title\x07 | $a$ <i> \x9b31m \x90 \u202e \u2066 \u200b \ufeff [red]"


def left_over(output):
    """What a terminal would obey, or nobody would see, beside rich's own colours and bars."""
    plain = OWN.sub("", output.replace("\r", "\n"))
    return {
        letter
        for letter in plain
        if unicodedata.category(letter) in {"Cc", "Cf", "Zl", "Zp", "Cs", "Co"} and letter not in "\n\t"
    }


def at_a_terminal(folder, *arguments, **variables):
    """The status of a command and all that a terminal of 60 columns gets to see of it, errors too."""
    pty = pytest.importorskip("pty")
    ours, its = pty.openpty()
    environment = (
        os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "60", "LINES": "40", "TERM": "xterm-256color"} | variables
    )
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "fccl", *arguments], cwd=folder, env=environment, stdin=its, stdout=its, stderr=its
    )
    os.close(its)
    said = all_of(ours)
    return process.wait(timeout=300), said


def here_at_a_terminal(monkeypatch, folder, *arguments):
    """The same by this process, whose libraries are loaded."""
    pty = pytest.importorskip("pty")
    ours, its = pty.openpty()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in {"COLUMNS": "60", "LINES": "40", "TERM": "xterm-256color"}.items():
        monkeypatch.setenv(name, value)
    with (
        ThreadPoolExecutor(1) as reader,
        os.fdopen(its, "w", encoding="utf-8") as terminal,
        monkeypatch.context() as at,
    ):
        said = reader.submit(all_of, ours)
        at.setattr(sys, "stdout", terminal)
        at.setattr(sys, "stderr", terminal)
        status = main(arguments)
        terminal.close()
        return status, said.result(60)


def all_of(ours):
    """All that is written at the other end, until that is closed."""
    content = b""
    with suppress(OSError):  # which Linux raises when the other end is closed
        while part := os.read(ours, 65536):
            content += part
    os.close(ours)
    return content.decode("utf-8", "replace")


def rows(count, category=HOSTILE):
    words = ("river", "mountain", "bread", "window", "engine")
    return [
        {
            "instruction": f"{HOSTILE} {words[number % 5]} {number}",
            "input": "",
            "output": f"\x1b]0;title\x07 {number} \b\x0b [link=y] \u202e rtl",
            "category": category.replace("river", words[number % 5]),
        }
        for number in range(count)
    ]


def of_data(data_file):
    return ("--sft-data", data_file, "--va-data", "synthetic", "--num-clients", "2")


@pytest.fixture
def data_file(tmp_path):
    path = tmp_path / "texts [red].jsonl"
    path.write_text("\n".join(map(json.dumps, rows(60))))
    return path.name


def test_prepare_shows_data_as_signs(tmp_path, data_file, monkeypatch):
    status, output = here_at_a_terminal(monkeypatch, tmp_path, "prepare", *of_data(data_file))
    assert status == 0, output
    assert left_over(output) == set()
    assert "\x1b[2J" not in output
    assert "\\x1b[2J" in output


@pytest.mark.slow
def test_a_run_shows_data_as_signs(tmp_path, data_file):
    short = (
        "--fed-rounds",
        "1",
        "--threads",
        "1",
        "--max-length",
        "64",
        "--gen-samples",
        "1",
        "--gen-tokens",
        "2",
        "--bootstrap-samples",
        "100",
    )
    status, output = at_a_terminal(tmp_path, "run", *of_data(data_file), *short)
    assert status == 0, output
    assert left_over(output) == set()
    assert "\x1b[5;7m" not in output
    assert "\\x1b]0;title" in output  # in the generations' instruction


@pytest.mark.parametrize(
    "arguments",
    [
        ("prepare", "--sft-data", "none \x1b[2J\u202e.jsonl"),
        ("run", "--model-name", "./\x1b[2J[/x]\x9b31m"),
        ("evaluate", "--log-dir", "a\x1b]0;title\x07"),
        ("compare", "--methods", "\x1b[2J"),
        ("client", "--client-id", "\x1b[2J"),
        ("\x1b[2J",),
        ("run", "--\u202exyz", "1"),
        ("report", "--log-dir", "\x1b[2J\u200b"),
        ("export", "x", "--log-dir", "\x1b[5m\x85"),
    ],
)
def test_an_error_shows_the_signs_of_what_it_speaks_of(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) in (1, 2)
    said = capsys.readouterr()
    assert left_over(said.out + said.err) == set()
    assert "\\x" in said.err or "\\u" in said.err


def console():
    return PlainConsole(file=StringIO(), width=60, force_terminal=True, markup=False, emoji=False)


@settings(max_examples=few(50), deadline=None)
@given(st.text(st.characters(), max_size=40))
def test_whatever_is_printed_in_whichever_way_nothing_of_it_is_a_command(text):
    shown = console()
    shown.print(text)
    shown.print(Text(text), soft_wrap=True)
    table = Table(title=Text(text))
    table.add_column(Text(text))
    table.add_row(Text(text))
    shown.print(table)
    shown.print(answer_line(ClientFailure(0, text)))
    with shown.status(Text(text)):
        pass
    output = shown.file.getvalue()
    assert {letter for letter in left_over(output) if letter not in "\u200c\u200d"} == set()


def test_another_process_s_text_on_a_client_s_screen_is_signs():
    shown = console()
    with ClientScreen(shown, 0) as screen:
        screen.tell(HOSTILE)
    output = shown.file.getvalue()
    assert left_over(output) == set()
    assert "\\x1b[2J" in output
    assert "\\x07" in output


def test_rich_s_own_colours_still_reach_the_terminal_and_data_has_none():
    shown = console()
    shown.print(Text("bold", style="bold"))
    shown.print("[red]text[/red] :smile:", highlight=False)
    assert shown.file.getvalue() == "\x1b[1mbold\x1b[0m\n[red]text[/red] :smile:\n"


def test_a_command_that_says_one_line_says_its_signs(capsys):
    say("Wrote a\x1b[2J.html")
    assert capsys.readouterr().out == "Wrote a\\x1b[2J.html\n"
