"""`federate`: a working transformers or TRL script takes part in a federation, and keeps its trainers as they are.

    from fccl.hf import federate

    federation = federate(sft=trainer, va=dpo_trainer, client_id=2)
    for task in federation:
        federation.train(task)

docs/my-trainer.md has the whole of it. TRL itself is never imported here.
"""

from fccl.hf.federation import FederatedTrainers, federate
from fccl.hf.learner import TrainerLearner

__all__ = ["FederatedTrainers", "TrainerLearner", "federate"]
