"""`ExampleNoise`: a run whose clients train by DP-SGD: ε of each client's examples, by its own numbers of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fccl.federation.privacy import ClientNoise
from fccl.federation.state import FederationState
from fccl.privacy.accountant import Steps, epsilon_of_steps
from fccl.privacy.sampling import ExampleSampling
from fccl.specs import Phase, TrainSpec


@dataclass(frozen=True, eq=False)
class ExampleNoise(ClientNoise):
    """Clients train by DP-SGD. ε is that of one instruction and one pair of a client, by its own numbers of examples.

    `train` says how many of them a step draws; `known` are the numbers of those clients whose shards the server knows.
    Others have declared theirs. A client of which neither is known is asked, and holds to its own budget.
    """

    train: Mapping[Phase, TrainSpec]
    known: Mapping[Phase, Mapping[int, int]]

    def counted_by(self) -> dict[str, Any]:
        """A step draws its examples in secret."""
        return {"sampling": "poisson", "amplified": True, "accountant": "PLD", "relation": "add or remove one"}

    def epsilon(self, state: FederationState, client: int, more: int = 0) -> float:
        """ε of a client's examples by now, and of so `more` updates in the state's next round."""
        pairs, next_phase = state.va_releases.get(client, 0), self.plan.as_it_went(state.early).phase_of
        updates: dict[Phase, int] = {"sft": state.releases.get(client, 0) - pairs, "va": pairs}
        if more:
            updates[next_phase(state.next_round)] += more
        steps = (self._steps(state, client, phase, count) for phase, count in updates.items())
        return epsilon_of_steps([each for each in steps if each is not None], self.spec.delta)

    def _steps(self, state: FederationState, client: int, phase: Phase, updates: int) -> Steps | None:
        said = state.declared.get(client)
        examples = said.samples(phase) if said else self.known.get(phase, {}).get(client, 0)
        if not examples:
            return None
        sampling = ExampleSampling.of(self.train[phase], examples)
        return Steps(noise=self.spec.noise, rate=sampling.rate, count=updates * sampling.steps)
