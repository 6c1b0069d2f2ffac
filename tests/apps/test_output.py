"""What is at the other end of a command's output: a stream that cannot spell a letter, a full disk, a reader that has
gone.
"""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fccl.apps.output import guarded_output
from fccl.errors import OutputError
from fccl.paths import LogPaths
from fccl.records.run import RunEvent
from fccl.storage.reading import read_records

ROOT = Path(__file__).resolve().parents[2]


def fccl(folder, *arguments, stdout=subprocess.PIPE, flags=(), **variables):
    return subprocess.Popen(
        [sys.executable, *flags, "-m", "fccl", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
        stdout=stdout,
        stderr=subprocess.PIPE,
    )


class Refusing(io.RawIOBase):
    """The other end of a pipe whose reader has gone."""

    def writable(self):
        return True

    def write(self, content):
        raise BrokenPipeError


def say_and_stop():
    try:
        print("one", flush=True)
    finally:
        print("stopped", flush=True)


def say_and_fail():
    print("one")
    raise KeyError


def test_a_refused_write_is_one_error_and_the_last_words_are_silent(monkeypatch):
    stream = io.TextIOWrapper(Refusing(), write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(OutputError, match="its reader is gone"), guarded_output():
        say_and_stop()
    assert sys.stdout is stream


def test_what_is_refused_at_the_end_is_told_too_but_not_instead_of_another_error(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(Refusing())))
    with pytest.raises(OutputError), guarded_output():
        print("one")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(Refusing())))
    with pytest.raises(KeyError), guarded_output():
        say_and_fail()


def test_no_output_at_all_is_none_of_a_command_s_business(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with guarded_output():
        print("one")


@pytest.mark.parametrize(
    "variables", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECOLOCALE": "0", "PYTHONUTF8": "0"}]
)
def test_a_letter_that_the_output_cannot_spell_is_a_question_mark(variables):
    code = "from fccl.apps.output import guarded_output\nwith guarded_output():\n    print('schl\\u00fcssel')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        timeout=100,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"schl?ssel\n", b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("flags", [(), ("-u",)])
@pytest.mark.parametrize("arguments", [("keys", "--num-clients", "1"), ("--help",), ("keys", "--help")])
def test_a_full_disk_behind_the_output_is_one_line_and_exit_1(tmp_path, arguments, flags):
    with open("/dev/full", "wb") as full:
        process = fccl(tmp_path, *arguments, stdout=full, flags=flags)
        _, errors = process.communicate(timeout=100)
    assert process.returncode == 1
    first, second = errors.decode().splitlines()
    assert first == "error: cannot write to standard output: No space left on device"
    assert second.startswith("  hint: ")


@pytest.mark.slow
def test_a_run_whose_reader_goes_says_so_here_and_in_its_log_and_goes_on(tmp_path):
    short = (
        "--num-clients",
        "2",
        "--fed-rounds",
        "1",
        "--max-sft-examples",
        "60",
        "--max-va-examples",
        "60",
        "--threads",
        "1",
        "--no-evaluate",
    )
    process = fccl(tmp_path, "run", *short)
    for line in process.stdout:
        if line.startswith(b"Base model"):
            break
    process.stdout.close()
    errors = process.stderr.read().decode()
    assert process.wait(timeout=100) == 1
    assert errors.startswith("error: cannot write to standard output: its reader is gone\n  hint: ")
    assert "--resume" in errors
    assert "Traceback" not in errors
    last = list(read_records(LogPaths(tmp_path / "logs").progress, RunEvent))[-1]
    assert (last.event, last.message) == ("failed", "cannot write to standard output: its reader is gone")
    again = fccl(tmp_path, "run", "--resume")
    output, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert b"2 rounds." in output
