"""One answer to a training task, judged: an update that can count, or a failure with its reason."""

from __future__ import annotations

from fccl.aggregation.lora_mean import require_frozen_a
from fccl.errors import UpdateRejected
from fccl.federation.bounds import measured
from fccl.messages import Answer, ClientFailure, ClientUpdate, FitTask
from fccl.training.masking import words_of


def judged(task: FitTask, answer: Answer, samples: int | None, whence: str) -> Answer:
    """The update, measured; one that does not answer the task, or contradicts what is known, as a failure.

    `samples` is how many examples the client has, where that is known; `whence` says from where.
    """
    if isinstance(answer, ClientFailure):
        return answer
    try:
        answer.require_answers(task)
        adapter = answer.adapter.load()
        if task.train.freeze_a:
            require_frozen_a(task.adapter, adapter)
        if task.secure is not None:
            words_of(task, adapter)  # which mean nothing alone
        else:
            answer = measured(answer, adapter, task.trained)
    except UpdateRejected as error:
        return ClientFailure(answer.client_id, str(error))
    return answer if task.privacy or task.secure else _of_so_many(answer, samples, whence)


def _of_so_many(update: ClientUpdate, samples: int | None, whence: str) -> Answer:
    reported = update.contribution.num_samples
    if samples is None or reported == samples:
        return update
    return ClientFailure(update.client_id, f"reports {reported} samples, but {whence} {samples}")
