"""Tools for the tests of those who extend FCCL, and for its own: the toy federation, real processes, contract suites.

`toy` is a learner of three numbers, `lora_toy` one of LoRA factors, `processes` runs both in processes of their own.
All need pytest and hypothesis: `pip install "fccl[testing]"`.
"""

from importlib.util import find_spec

_MISSING = [name for name in ("pytest", "hypothesis") if find_spec(name) is None]
if _MISSING:
    raise ModuleNotFoundError(
        f'fccl.testing needs {" and ".join(_MISSING)}: pip install "fccl[testing]"', name=_MISSING[0]
    )

import pytest  # noqa: E402

_SUITES = ("aggregation", "learner", "transport", "weigher")
pytest.register_assert_rewrite(*(f"{__name__}.{name}" for name in _SUITES))  # a failed assert then shows both sides
