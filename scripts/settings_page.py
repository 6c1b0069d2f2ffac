"""Writes docs/settings.md and fccl/library/arguments.py from `Settings`: every name, its range, its default, its type.

Writes the table of docs/privacy.md too: what goes with differential privacy and with secure aggregation.

`make settings-page` calls it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fccl.config import GROUPS, Settings, allowed, group_of  # noqa: E402
from fccl.config.fields import choices_of  # noqa: E402
from fccl.library.combinations import COMBINATIONS, OVER_EXCHANGE, Combination, Place  # noqa: E402
from fccl.library.ignored import read_by  # noqa: E402
from fccl.presets import PRESETS  # noqa: E402

PAGE = ROOT / "docs" / "settings.md"
MODULE = ROOT / "fccl" / "library" / "arguments.py"
PRIVACY = ROOT / "docs" / "privacy.md"
BEGIN, END = "<!-- made by `make settings-page` from fccl/library/combinations.py -->", "<!-- end -->"
MODULE_HEAD = '''"""The keyword arguments of the library: the settings, by group, with their types.

This file is made by `make settings-page` from `fccl/config/`; docs/settings.md says what each setting does.
"""

from __future__ import annotations

import os
from typing import Literal, TypedDict

'''
HEAD = """# Settings

A setting has one spelling: `--fed-rounds 5` as an argument is `FED_ROUNDS=5` in the environment, in `.env` and in
compose. Argument > environment > `.env` > preset > default. `fccl run --help` shows those that people change,
`--help-all` every one of the command. A name that is misspelt, or a value out of range, is one line:

```
error: unknown argument --fed-round
  hint: did you mean --fed-rounds?
```

Some settings are read by some rules alone: the last column says under which. As an argument beside another rule such
a setting is refused; from the environment or `.env` it is named once at the start, and does nothing.

```
error: --krum-keep has no effect under AGGREGATION=fedavg
  hint: leave it out; it is read under AGGREGATION=multi_krum
```

A command takes only what it reads. `fccl orchestrator` reads all groups but Client; `fccl client` reads Exchange and
Client, `DATA_DIR` or the files of its own data, `CLIENT_LORA_R`, `MIN_CLIENTS`, and of Privacy what a client can insist
on. `fccl run` reads no group of Exchange, Orchestrator and Client, but `STATE_DIR` and `MIN_SHARD`.

```
error: fccl orchestrator does not read --client-id
  hint: leave it out; it is read by fccl client
```

`fccl init` asks five questions (model, data, clients, machine, privacy), checks the answers and writes a commented
`.env`. It checks whether the model loads, how many examples a source has, and whether training is estimated to fit into
the memory that is there. Without a terminal its arguments are the answers:
`fccl init --model-name ./model --num-clients 4`.

`CONTRIBUTION_SOURCE` and `AGGREGATION` take a class of your own too: [Plug in your own rule](own-rules.md).
"""
PRESETS_HEAD = """## Presets

`PRESET` names a set of defaults. What you set yourself wins. Where no preset is named, `builtin:micro` takes
`quickstart` and any other model `pretrained`: the learning rates of the built-in model would ruin one that has learned
from much more text. A run says so in its first line, and records every value.
"""
FOOT = "\nThis page is made by `make settings-page` from `fccl/config/` and `fccl/presets.py`.\n"


def page() -> str:
    """The whole page, in Markdown."""
    return "\n".join([HEAD, *(_group(name) for name in GROUPS), _presets()]) + FOOT


def _group(name: str) -> str:
    rows = [
        f"| `{field.upper()}` | {_cell(allowed(info))} | {_default(info.default)} | {_cell(info.description or '')} | "
        f"{read_by(field)} |"
        for field, info in Settings.model_fields.items()
        if group_of(info) == name
    ]
    return "\n".join(
        [
            f"## {name[0].upper()}{name[1:]}",
            "",
            "| setting | allowed | default | what it does | read under |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _presets() -> str:
    return "\n".join([PRESETS_HEAD, *_preset_lines()])


def _preset_lines() -> Iterator[str]:
    for name, values in PRESETS.items():
        said = ", ".join(f"`{key.upper()}={value}`" for key, value in values.items()) or "the defaults above"
        yield f"- `{name}`: {said}"


def _default(value: object) -> str:
    return "" if value == "" else f"`{_plain(value)}`"


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def module() -> str:
    """The whole module, in Python: one class of keyword arguments for each group."""
    return MODULE_HEAD + "\n".join(_arguments(name) for name in GROUPS)


def _arguments(group: str) -> str:
    lines = [
        f"    {field}: {'str | type' if choices_of(info) else _type(info.annotation)}"
        for field, info in Settings.model_fields.items()
        if group_of(info) == group
    ]
    head = f'class {group.title()}Arguments(TypedDict, total=False):\n    """Settings of the group {group}."""\n\n'
    return "\n" + head + "\n".join(lines) + "\n"


def _type(kind: Any) -> str:
    if get_origin(kind) is not Literal:
        return "str | os.PathLike[str]" if kind is Path else str(kind.__name__)
    values = [f'"{value}"' for value in get_args(kind)]
    line = f"Literal[{', '.join(values)}]"
    return line if len(line) < 80 else "Literal[\n" + "".join(f"        {value},\n" for value in values) + "    ]"


def privacy(page_of_now: str) -> str:
    """docs/privacy.md with the table of what goes with its settings between its two marks."""
    head, _, rest = page_of_now.partition(BEGIN)
    rows = "\n".join(map(_combination, COMBINATIONS))
    noised = "yes: the updates in it are noised"
    over = (
        f"| `fccl orchestrator`, an exchange directory | {noised} | {noised} | "
        f"no: {OVER_EXCHANGE} | yes: the updates in it are masked |"
    )
    places = ("`DP_WHERE=client`", "with `DP_UNIT=example`", "`DP_WHERE=server`", "`SECURE_AGGREGATION=true`")
    table = f"| beside it | {' | '.join(places)} |\n|---|---|---|---|---|\n{rows}\n{over}"
    return f"{head}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}"


def _judged(each: Combination, place: Place) -> str:
    if (why := each.why(place)).startswith(("set to 0", "itself")):
        return why
    return f"{'no' if each.refuses(place) else 'yes'}: {why}"


def _combination(each: Combination) -> str:
    judged = (_judged(each, place) for place in get_args(Place))
    return f"| `{each.setting.upper()}`: {each.what} | {' | '.join(judged)} |"


if __name__ == "__main__":
    PRIVACY.write_text(privacy(PRIVACY.read_text(encoding="utf-8")), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
    MODULE.write_text(module(), encoding="utf-8")
