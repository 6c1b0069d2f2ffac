"""The split and the adapters that evaluation is tested on."""

from tests.evaluation.conftest import an_adapter, boot, options, split, taught

__all__ = ["an_adapter", "boot", "options", "split", "taught"]
