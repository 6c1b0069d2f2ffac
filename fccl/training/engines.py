"""The learner of each engine. A faster engine is one more row here and one more in `fccl.model.loading.ENGINES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fccl.messages import Learner
from fccl.model.language_model import AUTO, GENERIC, GPT2
from fccl.model.loading import Models
from fccl.training.learner import GenericLearner
from fccl.training.references import References

LEARNERS: Mapping[str, Callable[[Models, Sequence[int], References], Learner]] = {
    AUTO: GenericLearner,
    GENERIC: GenericLearner,
    GPT2: GenericLearner,
}


def learner_for(models: Models, ranks: Sequence[int] = (), references: References | None = None) -> Learner:
    """The learner of the models' engine. `ranks` as in `GenericLearner`: the directions that clients train.

    `references` remember log-probabilities, for later processes too where they have a cache.

    An example, a client that trains with the models that the application also validates with:

        models = Models()
        update = learner_for(models).fit(task, shard, on_status=print)
    """
    return LEARNERS[models.engine](models, ranks, references or References())
