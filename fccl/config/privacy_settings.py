"""The settings of differential privacy, and of what a client refuses to send."""

from __future__ import annotations

from typing import Literal

from pydantic_settings import BaseSettings

from fccl.config.fields import knob


class PrivacySettings(BaseSettings):
    """The settings that bound what an update, or the adapter made of it, says about a client."""

    dp_where: Literal["none", "client", "server"] = knob(
        "privacy",
        "none",
        "differential privacy: every client noises its own update (the server is not trusted), or the server noises "
        "their sum",
    )
    dp_unit: Literal["client", "example"] = knob(
        "privacy",
        "client",
        "what is protected: a whole client, or each example of it, by DP-SGD at the client (DP_WHERE=client)",
    )
    dp_clip: float = knob(
        "privacy", 1.0, "L2 norm that a client's change, or an example's gradient, is clipped to", gt=0
    )
    dp_clip_quantile: float = knob(
        "privacy",
        0.0,
        "adapt the clip so that this share of the changes is shorter (noise at the server); 0: it stays",
        ge=0,
        lt=1,
    )
    dp_noise: float = knob("privacy", 1.0, "noise multiplier: the noise's standard deviation over the clip", gt=0)
    dp_epsilon: float = knob(
        "privacy", 8.0, "the budget: the run stops before a client's epsilon at DP_DELTA passes it", gt=0
    )
    dp_delta: float = knob(
        "privacy", 1e-5, "delta of that budget; well below 1 / the number of clients, or of examples", gt=0, lt=1
    )
    client_sampling: Literal["fixed", "poisson"] = knob(
        "privacy",
        "fixed",
        "how a round draws its clients: CLIENTS_PER_ROUND of them, or each by itself with that probability",
    )
    secure_aggregation: bool = knob(
        "privacy",
        False,
        "clients mask their updates, so that the server learns the sum of a round and no single one (Bonawitz et al.)",
    )
    secure_clip: float = knob(
        "privacy", 10.0, "L2 norm that a client's change is clipped to before it is masked", gt=0, le=1e6
    )
    secure_max_samples: int = knob(
        "privacy", 1_000, "examples that a client counts for at most in a masked sum by samples", ge=1, le=10**6
    )
    secure_threshold: float = knob(
        "privacy",
        0.5,
        "share of a round's clients that a masked sum needs to be opened, always more than half; a client that is told "
        "refuses less",
        ge=0.5,
        le=1,
    )
    min_shard: int = knob(
        "client", 0, "a client with fewer examples of a phase declines it: no update of so few is sent", ge=0
    )
