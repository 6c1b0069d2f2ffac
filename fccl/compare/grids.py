"""The one knob that matters of each method, and the values that it is tried with.

`fccl compare --tune` tries them, on seeds of their own; a method's name with a value, `fedlaw@1`, is that method so
tuned. The values are a third of a decade to a decade apart, around the paper's or the rule's default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from fccl.compare.methods import METHODS, Method
from fccl.errors import SettingsError
from fccl.specs import Phase

AT = "@"  # between a method's name and the value of its knob


@dataclass(frozen=True)
class Grid:
    """A setting, and the values to try; the rule's default is among them."""

    setting: str
    values: tuple[float, ...]


_OPTIMISER = Grid("server_lr", (0.003, 0.01, 0.03, 0.1))
_TILT = Grid("verify_temperature", (0.25, 0.5, 1.0, 2.0))
_LEARNING = Grid("learn_lr", (0.0, 0.0002, 0.001, 0.01))  # 0: the rate of the phase
GRIDS: Mapping[str, Grid] = {
    "fedprox": Grid("prox_mu", (0.001, 0.01, 0.1, 1.0)),
    "fedavgm": Grid("server_momentum", (0.3, 0.6, 0.9)),
    "fedadagrad": _OPTIMISER,
    "fedyogi": _OPTIMISER,
    "fedadam": _OPTIMISER,
    "fedexp": Grid("fedexp_epsilon", (0.0001, 0.001, 0.01, 0.1)),
    "norm-clipping": Grid("clip_norm", (0.0, 0.3, 1.0, 3.0)),
    "fedawa": Grid("fedawa_lr", (0.003, 0.01, 0.03, 0.1)),
    "fltrust": Grid("fltrust_lr", (1.0, 2.0, 4.0, 8.0)),
    "fedlaw": Grid("fedlaw_lr", (0.1, 0.3, 1.0, 3.0)),
    "fedlaw-gamma": Grid("fedlaw_lr", (0.03, 0.1, 0.3, 1.0)),
    "lorahub": Grid("lorahub_penalty", (0.0, 0.01, 0.05, 0.2)),
    "data-size": Grid("contribution_temperature", (0.3, 1.0, 3.0)),
    "validation-loss": Grid("contribution_temperature", (0.03, 0.1, 0.3, 1.0)),
    "leave-one-out": _TILT,
    "shapley": _TILT,
    "verified": _TILT,
    "tempered": Grid("tempered_ratio", (1.0, 2.6, 7.0, 20.0)),
    **{name: _LEARNING for name, method in METHODS.items() if method.server_learns},
}


def tuned(name: str, read: Callable[[str, str], float]) -> Method | None:
    """The method of a name with a value, such as `fedadam@0.1`; None for a name without one.

    `read` makes the value of a setting from its text. Raises `SettingsError` for a method that has no knob, and what
    `read` raises.
    """
    method, at, value = name.partition(AT)
    if not at:
        return None
    if method not in GRIDS:
        raise SettingsError(f"{name}: {method} has no knob to tune", hint=f"these have: {', '.join(GRIDS)}")
    return with_value(METHODS[method], read(GRIDS[method].setting, value))


def tuned_for(method: Method, values: Mapping[Phase, float]) -> Method:
    """The method with the value of its knob in each phase; its name stays. Without values it is the method itself."""
    if not values:
        return method
    setting = GRIDS[method.name].setting
    return replace(method, tuned={phase: {setting: value} for phase, value in values.items()})


def with_value(method: Method, value: float) -> Method:
    """The method with its knob at this value, which no person's setting changes."""
    setting = GRIDS[method.name].setting
    return replace(
        method,
        name=f"{method.name}{AT}{value:g}",
        title=f"{method.title}, {setting.upper()}={value:g}",
        settings={**method.settings, setting: value},
    )
