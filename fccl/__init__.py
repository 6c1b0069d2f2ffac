"""FCCL, Federated Cognitive Contribution Learning: clients fine-tune LoRA adapters of one language model on data that
they keep, and the server weighs their updates by what they contribute.

    import fccl

    run = fccl.FederatedRun(num_clients=3, fed_rounds=3)
    for result in run:
        print(result.record.round, result.record.validation.loss, result.record.weights)
    run.evaluate()

The names below are loaded when they are first used: importing this package imports nothing heavy. docs/library.md goes
from the first federation to a rule of one's own; CONTRIBUTING.md is the tour of the code.
"""

import os
from typing import TYPE_CHECKING, Any

# MKL's products have the same bits in every run, and in every way to run one: static scheduling, reductions in a fixed
# order. MKL reads this at its first product, so it stands before everything that may bring one about. Without it the
# same command and notebook have other last bits on some processors.
os.environ.setdefault("MKL_CBWR", "AUTO")

if TYPE_CHECKING:
    from fccl.adapters.adapter import Adapter, load_adapter
    from fccl.contribution.protocol import Weigher, Weighing
    from fccl.errors import FcclError
    from fccl.federation.state import RoundResult
    from fccl.library.asking import replay, verify
    from fccl.library.client import Client
    from fccl.library.data import Data, prepare
    from fccl.library.federated_run import FederatedRun
    from fccl.library.orchestrator import Orchestrator
    from fccl.library.reading import list_runs, read_run
    from fccl.messages import ClientUpdate, FitTask

__version__ = "0.2.0"

__all__ = [
    "Adapter",
    "Client",
    "ClientUpdate",
    "Data",
    "FcclError",
    "FederatedRun",
    "FitTask",
    "Orchestrator",
    "RoundResult",
    "Weigher",
    "Weighing",
    "list_runs",
    "load_adapter",
    "prepare",
    "read_run",
    "replay",
    "verify",
]
HOMES = {
    "Adapter": "fccl.adapters.adapter",
    "Client": "fccl.library.client",
    "ClientUpdate": "fccl.messages",
    "Data": "fccl.library.data",
    "FcclError": "fccl.errors",
    "FederatedRun": "fccl.library.federated_run",
    "FitTask": "fccl.messages",
    "Orchestrator": "fccl.library.orchestrator",
    "RoundResult": "fccl.federation.state",
    "Weigher": "fccl.contribution.protocol",
    "Weighing": "fccl.contribution.protocol",
    "list_runs": "fccl.library.reading",
    "load_adapter": "fccl.adapters.adapter",
    "prepare": "fccl.library.data",
    "read_run": "fccl.library.reading",
    "replay": "fccl.library.asking",
    "verify": "fccl.library.asking",
}


def __getattr__(name: str) -> Any:
    """A name of `__all__`, loaded from its module at its first use (PEP 562)."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    globals()[name] = value = getattr(import_module(HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
