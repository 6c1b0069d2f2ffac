"""Every file name of the system, formatted here and nowhere else."""

from fccl.paths.after import AfterPaths
from fccl.paths.exchange import ExchangeName, ExchangePaths
from fccl.paths.folders import ComparePaths, DataPaths, KeptRoundPaths, KeyPaths, LogPaths, StatePaths
from fccl.paths.names import ADAPTER, is_usable, of_earlier_versions

__all__ = [
    "ADAPTER",
    "AfterPaths",
    "ComparePaths",
    "DataPaths",
    "ExchangeName",
    "ExchangePaths",
    "KeptRoundPaths",
    "KeyPaths",
    "LogPaths",
    "StatePaths",
    "is_usable",
    "of_earlier_versions",
]
