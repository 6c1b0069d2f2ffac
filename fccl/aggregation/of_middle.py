"""`OfMiddle`: any rule over the middle matrices of adapters whose factors stay (Fed-SB, Singhal et al. 2025).

With frozen B and A the mean of the products B R A is B (mean of R) A, exactly. So every rule does on R what it means
to do on products: means, server optimisers and robust rules alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from fccl.adapters.adapter import Adapter
from fccl.adapters.middle import joined, moving
from fccl.aggregation.protocol import Aggregated, Aggregation, Parts
from fccl.aggregation.state import ServerState


@dataclass(frozen=True)
class OfMiddle:
    """`rule` on the middle matrices: updates have those alone, the adapters before and after have their factors too."""

    rule: Aggregation

    @property
    def name(self) -> str:
        """The rule's."""
        return self.rule.name

    @property
    def uses_weights(self) -> bool:
        """As the rule."""
        return self.rule.uses_weights

    def initial(self, adapter: Adapter) -> ServerState:
        """The rule's state for the middle matrices."""
        return self.rule.initial(moving(adapter))

    def require(self, updates: int) -> None:
        """As the rule does."""
        self.rule.require(updates)

    def aggregate(self, before: Adapter, parts: Parts, state: ServerState) -> Aggregated:
        """The rule's middle matrices between the factors of `before`. Raises as the rule does."""
        made = self.rule.aggregate(moving(before), parts, state)
        return replace(made, adapter=joined(made.adapter, before))
