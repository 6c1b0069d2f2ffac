"""Tools for the tests of those who extend FCCL, and for its own: the toy federation, real processes, contract suites.

`toy` is a learner of three numbers, `lora_toy` one of LoRA factors, `processes` runs both in processes of their own.
All need pytest and hypothesis: `pip install "fccl[testing]"`.
"""

from fccl.extras import install_hint, missing_packages

if _MISSING := missing_packages("testing"):
    raise ModuleNotFoundError(
        f"fccl.testing needs {' and '.join(_MISSING)}: {install_hint('testing')}", name=_MISSING[0]
    )

import pytest

_SUITES = ("aggregation", "learner", "transport", "weigher")
pytest.register_assert_rewrite(*(f"{__name__}.{name}" for name in _SUITES))  # a failed assert then shows both sides
