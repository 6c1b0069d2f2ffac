"""Extras: libraries that only some commands need, and one line where such a library is missing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib.util import find_spec

from fccl.errors import SettingsError

# Each extra of pyproject.toml: the modules that it brings, and the package that installs each.
EXTRAS: Mapping[str, Mapping[str, str]] = {
    "dashboard": {
        "altair": "altair",
        "streamlit": "streamlit",
    },
    "testing": {"hypothesis": "hypothesis", "pytest": "pytest"},
    "tensorboard": {"tensorboard": "tensorboard"},
    "mlflow": {"mlflow": "mlflow-skinny", "sqlalchemy": "sqlalchemy", "alembic": "alembic"},
    "wandb": {"wandb": "wandb"},
    "lm-eval": {"lm_eval": "lm_eval"},
    "bitsandbytes": {"bitsandbytes": "bitsandbytes"},
    "flower": {"flwr": "flwr"},
    "privacy": {"dp_accounting": "dp-accounting"},
    "trl": {"trl": "trl"},  # for scripts of people (`fccl.hf`): nothing here imports it
}
REPORT = ("altair",)  # modules of the extra `dashboard` that a page of a report needs


def install_hint(extra: str) -> str:
    """The command that installs an extra."""
    return f'pip install "fccl[{extra}]"'


def missing_packages(extra: str, modules: Collection[str] = ()) -> list[str]:
    """The packages of an extra that are not installed; of these modules alone, if any are named."""
    return [
        package
        for module, package in EXTRAS[extra].items()
        if (not modules or module in modules) and find_spec(module) is None
    ]


def require_extra(extra: str, what: str, modules: Collection[str] = ()) -> None:
    """Raises `SettingsError` when `what` cannot be had since a library of this extra is not installed."""
    if missing := missing_packages(extra, modules):
        be = "is" if len(missing) == 1 else "are"
        raise SettingsError(f"{what} needs {' and '.join(missing)}, which {be} not installed", hint=install_hint(extra))
