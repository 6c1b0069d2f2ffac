"""Rules by their names: where the class of a rule is, and the settings that it is built from.

A rule of another package is named `package.module:Class`. Loading it runs its code, so the apps let a name through only
where the arguments or the environment of this very command have it.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from fccl.display.plain_text import printable
from fccl.errors import FcclError, SettingsError
from fccl.storage.files import sha256_of

LOSS = "loss"  # the argument of a weighing rule that is no setting: the loss on the server's learn split
INSTALLED_OR_HERE = "the module must be installed, or lie in the folder where the command is started"
_OWN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Registered:
    """A rule: its class as `package.module:Class`, and its arguments.

    `reads` has the argument of each setting that the class takes, `fixed` the other arguments by their values. `also`
    are settings that are read for this rule outside of its class. A rule `by_topic` tells clients apart by groups of
    the server's examples that share no topic.
    """

    path: str
    reads: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, object] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    takes_loss: bool = False
    by_topic: bool = False

    @property
    def settings(self) -> frozenset[str]:
        """All settings that have an effect under this rule."""
        return frozenset(self.reads) | frozenset(self.also)

    def build(self, settings: Mapping[str, object], **given: object) -> Any:
        """The rule, of those of the settings that it reads; one that `settings` lacks keeps the rule's own default.

        Raises `SettingsError` when the class is someone's own and its constructor raises.
        """
        own = {argument: settings[name] for name, argument in self.reads.items() if name in settings}
        return load(self.path)(**{**self.fixed, **own, **given})


def same(*names: str) -> dict[str, str]:
    """Settings whose arguments have their names."""
    return {name: name for name in names}


def is_own(name: str) -> bool:
    """Whether this names somebody's own class, and none of ours.

    >>> is_own("my_rules.trust:Trust"), is_own("verified")
    (True, False)
    """
    return len(name) <= _LONGEST_NAME and _OWN.fullmatch(name) is not None


@cache
def load(path: str) -> Callable[..., Any]:
    """The class `package.module:Class`. Raises `SettingsError` when there is none, or its module raises."""
    module_name, _, class_name = path.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # last, so that no file here stands for an installed module
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise SettingsError(f"{path}: there is no module {error.name}", hint=INSTALLED_OR_HERE) from error
    except (Exception, SystemExit) as error:
        raise SettingsError(f"{path}: importing {module_name} raised {said(error)}", hint="mend the module") from error
    kind = getattr(module, class_name, None)
    if not isinstance(kind, type):
        raise SettingsError(f"{path}: {module_name} has no class {class_name}", hint=_classes(module))
    return kind


def registered_own(path: str, known: Mapping[str, object], methods: Sequence[str]) -> Registered:
    """Somebody's own class: the arguments of its constructor that are named like settings are the settings it reads.

    Raises `SettingsError` when it lacks one of the methods of its protocol, or needs an argument that is no setting.
    """
    kind = load(path)
    if missing := [name for name in methods if not callable(getattr(kind, name, None))]:
        raise SettingsError(
            f"{path} has no method {', '.join(missing)}", hint="docs/own-rules.md shows all that a rule must have"
        )
    found = [one for one in parameters(kind) if one.name == LOSS or one.name in known]
    strange = [one.name for one in parameters(kind) if one.default is one.empty and one not in found]
    if strange:
        raise SettingsError(
            f"{path}: its constructor needs {', '.join(strange)}, which is no setting",
            hint="name its arguments like settings (server_lr, seed), or give them defaults",
        )
    reads = same(*(one.name for one in found if one.name != LOSS))
    return Registered(path, reads, takes_loss=any(one.name == LOSS for one in found))


def parameters(kind: Callable[..., Any]) -> list[inspect.Parameter]:
    """The named arguments of a class's constructor."""
    try:
        signature = inspect.signature(kind)
    except (TypeError, ValueError):
        return []
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [one for one in signature.parameters.values() if one.kind in named]


def built(registered: Registered, settings: Mapping[str, object], **given: object) -> Any:
    """Somebody's own rule. Raises `SettingsError` with what its constructor raises."""
    try:
        return registered.build(settings, **given)
    except FcclError:
        raise
    except (Exception, SystemExit) as error:
        raise SettingsError(
            f"{registered.path}: its constructor raised {said(error)}", hint="mend the class, or the settings it reads"
        ) from error


def source_sha256(path: str) -> str:
    """A hash of the file that the class is written in. Raises `SettingsError` when there is none."""
    try:
        return sha256_of(Path(inspect.getfile(load(path))))
    except (OSError, TypeError) as error:
        raise SettingsError(
            f"{path} is written in no file that can be read", hint="put the class in a module, a .py file"
        ) from error


def said(error: BaseException) -> str:
    """An exception in one line: its kind and what it says, where it says anything."""
    try:
        text = printable(" ".join(str(error).split()))
    except Exception:  # of somebody else's class, whose `__str__` may raise
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _classes(module: object) -> str:
    name = getattr(module, "__name__", "")
    found = [key for key, value in vars(module).items() if isinstance(value, type) and value.__module__ == name]
    return printable("its classes: " + ", ".join(found[:10])) if found else "name a module that holds one"
