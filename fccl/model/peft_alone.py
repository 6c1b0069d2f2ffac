"""Imports PEFT without bitsandbytes, which PEFT would load where it is installed.

It makes every start a second and more slower, and PEFT itself needs it at import for nothing. What FCCL takes of it is
imported where it is asked for. To be imported before PEFT.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

_NAME = "bitsandbytes"
logging.getLogger(_NAME).setLevel(logging.ERROR)  # it advises kernels that FCCL does not use
_modules: dict[str, Any] = sys.modules

if _NAME not in _modules:
    _modules[_NAME] = None  # as Python marks a module that cannot be imported
    try:
        import peft.helpers  # noqa: F401
    finally:
        del _modules[_NAME]
