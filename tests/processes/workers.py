"""Objects for worker processes that load nothing heavy, and the ways to see that a process is gone."""

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Calculator:
    """Adds, counts, fails and dies."""

    start: int = 0

    def add(self, number, say):
        return self.start + number

    def count(self, number, say):
        for each in range(number):
            say(each)
        return number

    def own_pid(self, say):
        return os.getpid()

    def environment(self, name, say):
        return os.environ.get(name)

    def fail(self, error, say):
        raise error

    def fail_strangely(self, say):
        class Strange(Exception):
            pass

        raise Strange("cannot travel")

    def wait(self, say):
        """Until it is killed."""
        say(os.getpid())
        signal.pause()

    def die_unless(self, path, say):
        """The first time it is asked with this path."""
        if not Path(path).exists():
            Path(path).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid()

    def die(self, say):
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Slowly:
    """A calculator that takes its time, and leaves a file of its worker's name once it is made."""

    folder: Path

    def __call__(self):
        time.sleep(0.5)
        (self.folder / os.environ["WHO"]).touch()
        return Calculator()


@dataclass(frozen=True)
class Broken:
    """An object that cannot be made."""

    def __call__(self):
        raise ValueError("no such object")


@dataclass(frozen=True)
class MakeCalculator:
    start: int = 0

    def __call__(self):
        return Calculator(self.start)


@dataclass(frozen=True)
class Asked:
    """The least that a request is to `ProcessesTransport`."""

    folder: str
    run_id: str = "run"
    round: int = 0
    phase: str = "sft"


class Mortal:
    """The object of a transport's process. Client 1 dies once, client 2 each time."""

    def answer(self, request, client_id, say):
        if client_id == 1:
            Calculator().die_unless(f"{request.folder}/died", say)
        if client_id == 2:
            Calculator().die(say)
        return client_id, os.getpid()


class Deadly:
    """The object of a process that dies with the model called "bad", each time."""

    def evaluate(self, subject, split, say):
        if subject.name == "bad":
            Calculator().die(say)


def wait_until_gone(pid):
    """Until no process has this number, or a dead one whose parent has not looked yet."""
    for _ in range(6000):
        if not is_alive(pid):
            return
        time.sleep(0.01)
    raise AssertionError(f"process {pid} is still there")


def is_alive(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] not in "ZX"
    return False
