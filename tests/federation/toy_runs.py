"""Whole runs of toy clients on the disk, for tests of what is asked after a run."""

from fccl.federation.run import Run
from fccl.federation.run_folder import RunFolder
from fccl.paths import LogPaths
from fccl.records.run import Validation
from fccl.testing.toy import MODEL, START, TRAIN, ToyLearner, federation, shard
from fccl.transports.in_process import InProcessTransport

CLIENTS, ROUNDS = 4, 4  # two of each phase


def toy_loss(phase, adapter, reference):
    """A loss with its minimum at (1, 2, 3), the same in both phases."""
    numbers = adapter.tensors["w"].tolist()
    return Validation(
        loss=sum((number - goal) ** 2 for number, goal in zip(numbers, (1, 2, 3), strict=True)), examples=5
    )


def toy_transport(learner=None):
    return InProcessTransport(learner or ToyLearner(), shard)


def conduct(root, fed=None, start=START, learner=None, **changes):
    """A whole run in `root/logs`. Returns its files and the results of its rounds."""
    run = Run(fed or federation(), RunFolder.at(root / "logs"), lambda: start.adapter, **changes)
    results = list(run.rounds(toy_transport(learner)))
    run.finish(toy_transport(learner))
    return LogPaths(root / "logs"), results


__all__ = ["CLIENTS", "MODEL", "ROUNDS", "START", "TRAIN", "conduct", "federation", "toy_loss", "toy_transport"]
