"""The end of a phase: every client scores base, alone and global adapter on its own test examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from fccl import phases
from fccl.adapters.adapter import Adapter
from fccl.federation.state import RoundResult
from fccl.messages import ClientFailure, OwnTestTask
from fccl.records.run import OwnTestResult
from fccl.specs import RoundPlan, TrainSpec
from fccl.transports.protocol import Transport


@dataclass(frozen=True)
class OwnTests:
    """Asks clients that keep examples apart. `batch_size` is that of scoring, in sequences."""

    batch_size: int

    def with_results(
        self,
        result: RoundResult,
        plan: RoundPlan,
        train: TrainSpec,
        first: Callable[[], Adapter],
        transport: Transport,
        tell: Callable[[str], None],
    ) -> RoundResult:
        """The result of a phase's last round with what clients report. `plan` and `train` are those of the phase,
        `first` gives the adapter that round 0 began with; `tell` hears why a client reports nothing.

        Clients whose updates did not count in the round are not asked: they would be waited for again.
        """
        found: dict[int, OwnTestResult] = {}
        for answer in transport.ask(self._request(result, plan, train, first), result.record.clients):
            if isinstance(answer, ClientFailure):
                phase = phases.title(result.record.phase)
                tell(f"client {answer.client_id}: no own test after {phase}: {answer.reason}")
            elif answer.client_id in result.record.clients:
                found.setdefault(answer.client_id, OwnTestResult.model_validate(answer.model_dump()))
        own_tests = tuple(found[client] for client in sorted(found))
        return replace(result, record=result.record.model_copy(update={"own_tests": own_tests}))

    def _request(
        self, result: RoundResult, plan: RoundPlan, train: TrainSpec, first: Callable[[], Adapter]
    ) -> OwnTestTask:
        task, state = result.inputs.task, result.state
        begun = plan.first_round(task.phase)
        shares = map(plan.learning_rate_share, range(begun, task.round + 1))
        return OwnTestTask(
            task.run_id,
            task.round,
            task.phase,
            adapter=state.result,
            start=state.reference if task.phase == "va" and state.reference is not None else first(),
            reference=task.reference,
            model=task.model,
            train=train,
            seed=task.seed,
            rates=tuple(train.learning_rate * share for share in shares),
            batch_size=self.batch_size,
        )
