"""Every file name of the system, formatted here and nowhere else."""

from fccl.paths.after import AfterPaths
from fccl.paths.exchange import ExchangeName, ExchangePaths
from fccl.paths.flower import FlowerPaths, ServerPaths, SitePaths, TlsPaths
from fccl.paths.folders import ComparePaths, DataPaths, KeyPaths, LogPaths, StatePaths
from fccl.paths.kept_round import KeptRoundPaths
from fccl.paths.names import ADAPTER, CARD, CODED, is_usable, of_earlier_versions, run_digits
from fccl.paths.personal import PersonalPaths
from fccl.paths.residuals import ResidualPaths

__all__ = [
    "ADAPTER",
    "CARD",
    "CODED",
    "AfterPaths",
    "ComparePaths",
    "DataPaths",
    "ExchangeName",
    "ExchangePaths",
    "FlowerPaths",
    "KeptRoundPaths",
    "KeyPaths",
    "LogPaths",
    "PersonalPaths",
    "ResidualPaths",
    "ServerPaths",
    "SitePaths",
    "StatePaths",
    "TlsPaths",
    "is_usable",
    "of_earlier_versions",
    "run_digits",
]
