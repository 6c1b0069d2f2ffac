"""`PrivacySpec`: the differential privacy that a run gives each client, or each example: it travels in its tasks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fccl.specs import Value

Where = Literal["client", "server"]  # that adds the noise
Sampling = Literal["fixed", "poisson"]  # of a round's clients
Unit = Literal["client", "example"]  # that neighbours differ in


class PrivacySpec(Value):
    """Client-level differential privacy: each change is clipped to L2 norm `clip`, and the noise on the sum of clipped
    changes has the standard deviation `noise` · `clip` (McMahan et al. 2018).

    With `where="client"` every client adds that noise to its own change, and the server is not trusted. With
    `where="server"` it is added once, to the sum. `clip_quantile` above 0 has the server adapt the clip, which then
    begins at `clip` (Andrew et al. 2021).

    With `unit="example"` a client trains by DP-SGD (Abadi et al. 2016). Then `clip` bounds the gradient of one example,
    and `noise` · `clip` is the deviation on the sum of a step's gradients.

    >>> PrivacySpec(where="client", clip=0.5, noise=4.0, epsilon=8.0, delta=1e-5).deviation
    2.0
    """

    where: Where
    clip: float = Field(gt=0)  # C, in the unit of the adapter's numbers
    noise: float = Field(gt=0)  # z, the noise multiplier
    epsilon: float = Field(gt=0)  # the budget of a client over the run, at `delta`
    delta: float = Field(gt=0, lt=1)
    sampling: Sampling = "fixed"
    clip_quantile: float = Field(default=0.0, ge=0, lt=1)  # 0: the clip stays
    unit: Unit = "client"

    @property
    def deviation(self) -> float:
        """The standard deviation of the noise on a number of the sum: z · C."""
        return self.noise * self.clip

    @property
    def noises_changes(self) -> bool:
        """Whether each client noises its whole change."""
        return self.where == "client" and self.unit == "client"

    def mechanism(self) -> str:
        """The part that two parties must agree on, in words."""
        unit = f", DP_UNIT={self.unit}" if self.unit != "client" else ""
        return f"DP_WHERE={self.where}{unit}, DP_CLIP={self.clip:g}, DP_NOISE={self.noise:g}"
