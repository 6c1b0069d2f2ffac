"""The command `fccl`: finds the command, reads its settings, and turns errors into one line and an exit status.

Exit status: 0 done, 1 an error that the message explains, 2 a wrong setting or argument, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fccl import __version__
from fccl.apps.arguments import overview, parse
from fccl.apps.commands import COMMANDS
from fccl.apps.output import guarded_output
from fccl.display.plain_text import printable
from fccl.errors import FcclError, SettingsError

_LONGEST_MESSAGE = 10_000  # characters


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with guarded_output():
            return _dispatch(arguments)
    except FcclError as error:
        print(f"error: {_shown(error)}", file=sys.stderr)
        if error.hint:
            print(f"  hint: {_shown(error.hint)}", file=sys.stderr)
        return 2 if isinstance(error, SettingsError) else 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _shown(message: object) -> str:
    """A message may hold what another process wrote."""

    return printable(str(message), _LONGEST_MESSAGE, keep="\n")


def door(command: str) -> int:
    """The entry of the scripts at the root of a checkout: one command, with the script's arguments."""
    return main([command, *sys.argv[1:]])


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"fccl {__version__}")
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        from fccl.display.words import nearest

        guess = nearest(name, COMMANDS)
        raise SettingsError(
            f"unknown command {name}",
            hint=f"did you mean `fccl {guess}`?" if guess else "`fccl --help` lists the commands",
        )
    # Threads that wait for work must sleep, not spin: two processes on the same cores are otherwise slower by a factor
    # of ten and more.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    given, options = parse(name, arguments[1:])
    options.given = given
    from fccl.config import load_settings

    settings = load_settings(given)
    if name in ("run", "evaluate"):
        from fccl.apps.head_start import head_start

        options.launch = head_start(name, settings)
    with _patience(name):
        run = COMMANDS[name].main()
    return run(settings, options)


@contextmanager
def _patience(name: str) -> Iterator[None]:
    """A line on the terminal while the libraries load, which takes seconds the first time; it is gone afterwards."""
    line = f"fccl {name}: loading the libraries ..."
    if sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    print(line, end="\r", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print(" " * len(line), end="\r", file=sys.stderr, flush=True)
