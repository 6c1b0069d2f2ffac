"""`fccl chat`: one prompt, the answers of a run's models side by side."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fccl.adapters.adapter import Adapter
from fccl.apps.console import plain_console
from fccl.apps.terminal_tables import QUIET
from fccl.config import Settings, set_elsewhere
from fccl.display.plain_text import MAX_LINE, one_line
from fccl.errors import SettingsError
from fccl.federation.run_evaluation import run_adapters
from fccl.federation.run_folder import RunFolder
from fccl.library.narrow import settings_of
from fccl.model.generate import Sampling, generate
from fccl.model.language_model import LanguageModel
from fccl.model.loading import load_model

PROMPT = "> "


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Answer the prompt that is given, or those that standard input has, a line each. Returns the exit status."""
    folder = RunFolder.at(settings.log_dir)
    recorded, adapters = settings_of(folder.recorded("chat with")), run_adapters(folder.paths)
    _require_sense(options)
    model, console = load_model(recorded.model_spec()), plain_console()
    length = settings.gen_tokens if {"gen_tokens"} & {*options.given, *set_elsewhere()} else recorded.gen_tokens
    sampling = Sampling(settings.gen_temperature, recorded.seed) if options.sample else None
    for prompt in [options.prompt] if options.prompt else typed(console):
        show(console, answers(model, adapters, prompt, length, sampling))
    return 0


def _require_sense(options: argparse.Namespace) -> None:
    """Raises `SettingsError` for an empty prompt, and for a temperature that nothing would use."""
    if options.prompt and not options.prompt.strip():
        raise SettingsError("the prompt is empty", hint="leave it out to type prompts, one a line")
    if "gen_temperature" in options.given and not options.sample:
        raise SettingsError(
            "--gen-temperature has no effect on the likeliest tokens", hint="add --sample, or leave it out"
        )


def answers(
    model: LanguageModel, adapters: Mapping[str, Adapter | None], prompt: str, length: int, sampling: Sampling | None
) -> dict[str, str]:
    """Each adapter's answer to one prompt, by the adapter's name; None is the base model. The last one stays loaded."""
    found = {}
    for name, adapter in adapters.items():
        model.load(adapter or model.initial_adapter(seed=0))  # whose B is zero: the base model exactly
        (found[name],) = generate(model, [prompt], length, batch_size=1, sampling=sampling)
    return found


def typed(console: Console) -> Iterator[str]:
    """The lines of standard input that say something, until it ends; a person is asked for each."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    asks = sys.stdin is not None and sys.stdin.isatty() and console.is_terminal
    if asks:
        console.print(Text("One prompt a line; Ctrl-D ends.", QUIET))
    yield from (line for line in (_asked() if asks else sys.stdin or ()) if line.strip())


def _asked() -> Iterator[str]:
    while True:
        try:
            yield input(PROMPT)
        except EOFError:
            print()
            return


def show(console: Console, said: Mapping[str, str]) -> None:
    """The answers in columns on a terminal; elsewhere a line each, with the model's name before it."""
    if console.is_terminal:
        console.print(_columns(list(said), list(said.values())))
        return
    for name, answer in said.items():
        console.print(Text(f"{name}: {one_line(answer)[:MAX_LINE]}"), soft_wrap=True)


def _columns(names: Sequence[str], texts: Iterable[str]) -> Table:
    grid = Table(box=SIMPLE_HEAD, pad_edge=False, expand=True)
    for name in names:
        grid.add_column(Text(name), ratio=1, overflow="fold")
    grid.add_row(*map(Text, texts))
    return grid
