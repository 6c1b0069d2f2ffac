"""The learner over any engine: what differs between engines stands behind `fccl.model.language_model.LanguageModel`."""

from __future__ import annotations

from collections.abc import Sequence

from fccl.messages import Learner
from fccl.model.loading import Models
from fccl.training.clients_learner import ClientsLearner
from fccl.training.references import References


def learner_for(models: Models, ranks: Sequence[int] = (), references: References | None = None) -> Learner:
    """The learner of a process. A task's `model.engine` says with which engine it trains.

    It takes several clients at once where it is asked to (`fccl.messages.SeveralAtOnce`). `ranks` as in
    `GenericLearner`: the directions that clients train. `references` remember log-probabilities, for later processes
    too where they have a cache.

    An example, a client that trains with the models that the application also validates with:

        models = Models()
        update = learner_for(models).fit(task, shard, on_status=print)
    """
    return ClientsLearner(models, ranks, references or References())
