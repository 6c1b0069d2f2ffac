"""Tools for the tests of those who extend FCCL, and for its own: contract suites, the toy federation, real processes.

A suite is a class of tests that every implementation here passes. Inherit from it, say how yours is made, and run
pytest:

    from fccl.testing import WeigherContract

    class TestMyRule(WeigherContract):
        def rule(self, loss):
            return MyRule(loss)

| suite | for | a subclass gives |
|---|---|---|
| `WeigherContract` | contribution rules | `rule(self, loss)`: the rule |
| `AggregationContract` | aggregation rules | `rule(self)`: the rule |
| `LearnerContract` | learners | a fixture `subject`: a `fccl.testing.learner.Subject` |
| `TransportContract` | transports | a fixture `make`: a function that makes one to toy clients |

`fccl.testing.toy` is a learner of three numbers, `lora_toy` one of LoRA factors, `processes` runs both in processes of
their own. All need pytest and hypothesis: `pip install "fccl[testing]"`.
"""

from typing import TYPE_CHECKING, Any

from fccl.extras import install_hint, missing_packages

if _MISSING := missing_packages("testing"):
    raise ModuleNotFoundError(
        f"fccl.testing needs {' and '.join(_MISSING)}: {install_hint('testing')}", name=_MISSING[0]
    )

import pytest

if TYPE_CHECKING:
    from fccl.testing.aggregation import AggregationContract
    from fccl.testing.learner import LearnerContract
    from fccl.testing.transport import TransportContract
    from fccl.testing.weigher import WeigherContract

__all__ = ["AggregationContract", "LearnerContract", "TransportContract", "WeigherContract"]
_HOMES = {name: f"{__name__}.{name.removesuffix('Contract').lower()}" for name in __all__}
pytest.register_assert_rewrite(*_HOMES.values())  # a failed assert then shows both sides


def __getattr__(name: str) -> Any:
    """A suite, loaded from its module at its first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
