"""From settings to differential privacy: the spec, what goes with it and what does not, and what a client holds to.

`COMBINATIONS` is the one list of what is sound. A run is refused by it before anything starts, and docs/privacy.md has
its table (`make settings-page`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from fccl.config import Settings
from fccl.errors import SettingsError
from fccl.extras import require_extra
from fccl.federation.privacy import ClientNoise, RunPrivacy
from fccl.federation.server_noise import ServerNoise
from fccl.messages import Learner
from fccl.paths import LogPaths, StatePaths
from fccl.privacy.accountant import accounting_of, smallest_noise
from fccl.privacy.spec import PrivacySpec, Where
from fccl.training.private import PrivateLearner
from fccl.words import plural

MEANS = ("fedavg", "fedprox", "fedavgm", "fedadagrad", "fedyogi", "fedadam")  # rules that one noised mean is enough for
_BY_REPORTS = ("loss_inverse", "data_loss_combined", "data_size")
_NOT_REPORTED = "it weighs by what clients report of their training, and under differential privacy they report nothing"
_AFTER = "it sees noised updates only"


@dataclass(frozen=True)
class Combination:
    """A choice beside DP_WHERE: whether it goes with noise at the client and at the server, and why.

    `setting` is refused under the values of `refused` where `chosen` holds.
    """

    setting: str
    what: str  # its values, in words
    client: str
    server: str
    refused: frozenset[Where] = frozenset()
    chosen: Callable[[Settings], bool] = lambda settings: False
    hint: str = "leave one of the two out"

    def why(self, where: Where) -> str:
        """The reason, under one place of the noise."""
        return self.client if where == "client" else self.server


def _weighs(settings: Settings) -> bool:
    return settings.contribution_mode != "uniform"


def _by_reports(settings: Settings) -> bool:
    source = settings.contribution_mode == "cognitive" and settings.contribution_source in _BY_REPORTS
    return source or settings.contribution_mode == "fedavg"


_BOTH: frozenset[Where] = frozenset({"client", "server"})
_SERVER: frozenset[Where] = frozenset({"server"})
_CLIENT: frozenset[Where] = frozenset({"client"})
COMBINATIONS: tuple[Combination, ...] = (
    Combination(
        "aggregation",
        "scaffold",
        "its control variates are means of gradients, and would be sent without noise",
        "its control variates are means of gradients, and no noise covers them",
        _BOTH,
        lambda settings: settings.aggregation == "scaffold",
        "use fedavg or fedprox",
    ),
    Combination(
        "aggregation",
        "fedavg, fedprox, fedavgm, fedadagrad, fedyogi, fedadam",
        _AFTER,
        "it sees the noised mean only",
    ),
    Combination(
        "aggregation",
        "median, trimmed_mean, krum, multi_krum, geometric_median, fedexp, norm_clipping, a class of your own",
        _AFTER,
        "it looks at single updates before the noise, and the noise is measured for a sum",
        _SERVER,
        lambda settings: settings.aggregation not in (*MEANS, "scaffold"),
        f"use one of {', '.join(MEANS)}, or DP_WHERE=client",
    ),
    Combination("lora_aggregation", "factors, freeze_a", "frozen factors get no noise", "frozen factors get no noise"),
    Combination(
        "lora_aggregation",
        "svd, exact, nearly",
        _AFTER,
        "it multiplies the factors of single updates before the noise",
        _SERVER,
        lambda settings: settings.lora_aggregation in ("svd", "exact", "nearly"),
        "use factors or freeze_a, or DP_WHERE=client",
    ),
    Combination(
        "update_codec",
        "fp16, int8, int4, topk",
        "a codec changes an update after its noise, topk over rounds, and the tests of the noise do not cover that",
        "the bound is on whole updates, and the bytes of a round would say how many clients have answered",
        _BOTH,
        lambda settings: settings.update_codec != "fp32",
        "use UPDATE_CODEC=fp32",
    ),
    Combination("contribution_mode", "uniform", "it looks at nothing", "each of the m clients of a round counts 1 / m"),
    Combination(
        "contribution_mode",
        "fedavg, or cognitive with loss_inverse, data_loss_combined or data_size",
        _NOT_REPORTED,
        _NOT_REPORTED,
        _BOTH,
        _by_reports,
        "use CONTRIBUTION_MODE=uniform",
    ),
    Combination(
        "contribution_source",
        "verified and all others that look at updates, or a class of your own",
        f"{_AFTER}; a prior by samples is equal for all",
        "weights are an output too: made of un-noised updates they tell of one client through all others",
        _SERVER,
        _weighs,
        "use CONTRIBUTION_MODE=uniform, or DP_WHERE=client",
    ),
    Combination(
        "late_updates",
        "next",
        "releases are counted by the clients that a round draws, and a late update is of another round's draw",
        "the noise is measured for the sum of the clients that a round draws, and a late update is none of them",
        _BOTH,
        lambda settings: settings.late_updates == "next",
        "leave LATE_UPDATES out",
    ),
    Combination(
        "open",
        "true",
        "the budget is counted for NUM_CLIENTS clients from start to end",
        "the budget is counted for NUM_CLIENTS clients from start to end",
        _BOTH,
        lambda settings: settings.open,
        "leave OPEN out",
    ),
    Combination(
        "client_test_share",
        "above 0",
        "clients would report un-noised losses on examples of their own",
        "clients would report un-noised losses on examples of their own",
        _BOTH,
        lambda settings: settings.client_test_share > 0,
        "leave it out",
    ),
    Combination(
        "personalize",
        "finetune, ditto",
        "a personal adapter never leaves its client, but its losses would be reported without noise",
        "a personal adapter never leaves its client, but its losses would be reported without noise",
        _BOTH,
        lambda settings: settings.personalize != "off",
        "leave PERSONALIZE out",
    ),
    Combination(
        "original_clients",
        "any",
        "they neither clip nor add noise",
        "over an exchange directory there is no noise at the server",
        _BOTH,
        lambda settings: bool(settings.original_client_ids),
        "start `fccl client` in their place",
    ),
    Combination(
        "client_sampling",
        "poisson",
        "the server sees who sends an update, so a draw hides nobody",
        "counted, for the draw is the server's secret",
        _CLIENT,
        lambda settings: settings.client_sampling == "poisson",
        "leave it out",
    ),
    Combination(
        "dp_clip_quantile",
        "above 0",
        "clients would have to say whether their change was clipped",
        "the count is noised too, and both cost what DP_NOISE says",
        _CLIENT,
        lambda settings: settings.dp_clip_quantile > 0,
        "leave it out",
    ),
    Combination("keep_updates_mb", "above 0", "what is kept is noised", "set to 0: nothing of a single client is kept"),
    Combination(
        "max_update_ratio",
        "above 0",
        _AFTER,
        "set to 0: who is excluded would depend on all the others; clipping bounds every change",
    ),
    Combination(
        "learn_epochs",
        "above 0; also START_FROM, PATIENCE, RESULT_ROUND, the validation split",
        "the server's own examples",
        "the server's own examples",
    ),
    Combination(
        "server_only",
        "true",
        "a client that is started with DP_WHERE=client declares one example of each phase that it has",
        "needs an exchange directory, see the next row",
    ),
)
OVER_EXCHANGE = "updates lie in the exchange directory without noise, and its files say whom a round asks"
_SET_TO_0 = ("keep_updates_mb", "max_update_ratio")  # with noise at the server


def privacy_spec(settings: Settings) -> PrivacySpec | None:
    """The differential privacy that these settings ask for, if any.

    Raises `SettingsError` where dp-accounting is not installed.
    """
    if settings.dp_where == "none":
        return None
    require_extra("privacy", f"DP_WHERE={settings.dp_where}")
    return PrivacySpec(
        where=settings.dp_where,
        clip=settings.dp_clip,
        noise=settings.dp_noise,
        epsilon=settings.dp_epsilon,
        delta=settings.dp_delta,
        sampling=settings.client_sampling,
        clip_quantile=settings.dp_clip_quantile,
    )


def run_privacy(settings: Settings) -> RunPrivacy | None:
    """The differential privacy of a run of these settings, at its server."""
    if (spec := privacy_spec(settings)) is None:
        return None
    plan = settings.round_plan()
    if spec.where == "client":
        return ClientNoise(spec, plan)
    return ServerNoise(spec, plan, LogPaths(settings.log_dir).private)


def require_sound(settings: Settings) -> None:
    """Raises `SettingsError` for what does not go with differential privacy, or a budget that allows no round."""
    if (spec := privacy_spec(settings)) is None:
        return
    for each in COMBINATIONS:
        if spec.where in each.refused and each.chosen(settings):
            raise SettingsError(
                f"{each.setting.upper()}={getattr(settings, each.setting)} does not go with DP_WHERE={spec.where}: "
                f"{each.why(spec.where)}",
                hint=each.hint,
            )
    plan = settings.round_plan()
    accounting = accounting_of(spec, plan.num_clients, plan.clients_per_round)
    if accounting.epsilon(1) > spec.epsilon:
        enough = smallest_noise(accounting, spec.epsilon, plan.total_rounds)
        raise SettingsError(
            f"DP_EPSILON={spec.epsilon:g} allows no round: with DP_NOISE={spec.noise:g} one costs "
            f"{accounting.epsilon(1):.2f} at DP_DELTA={spec.delta:g}",
            hint=f"DP_NOISE={enough:g} allows all {plural(plan.total_rounds, 'round')}",
        )


def require_noise_at_clients(settings: Settings) -> None:
    """Raises `SettingsError` where the server would add the noise and the clients are other processes."""
    if settings.dp_where == "server":
        raise SettingsError(
            f"DP_WHERE=server does not go with `fccl orchestrator`: {OVER_EXCHANGE}",
            hint="use DP_WHERE=client, at the orchestrator and at every client",
        )


def with_privacy(settings: Settings, tell: Callable[[str], None], given: Mapping[str, object]) -> Settings:
    """The settings of a new run with those that its differential privacy decides, and lines on what it means.

    Raises `SettingsError` for an argument that it does not allow.
    """
    if settings.dp_where == "none":
        return settings
    decided = {name: 0 for name in _SET_TO_0 if settings.dp_where == "server" and getattr(settings, name)}
    for name in decided:
        if name in given:
            raise SettingsError(
                f"{name.upper()}={getattr(settings, name)} does not go with DP_WHERE=server: "
                f"{next(each.server for each in COMBINATIONS if each.setting == name).removeprefix('set to 0: ')}",
                hint="leave it out",
            )
    share = {"client_test_share": 0.0} if settings.client_test_share < 0 else {}
    settings = settings.model_copy(update=decided | share)
    require_sound(settings)
    tell(_said(settings, cast(PrivacySpec, privacy_spec(settings))))
    return settings


def _said(settings: Settings, spec: PrivacySpec) -> str:
    plan = settings.round_plan()
    accounting = accounting_of(spec, plan.num_clients, plan.clients_per_round)
    most = accounting.releases_within(spec.epsilon, plan.total_rounds)
    room = (
        f"{'all ' * (most > 1)}{plural(most, 'round')}"
        if most == plan.total_rounds
        else f"{most} of {plan.total_rounds} rounds"
    )
    drawn = f", {spec.sampling} sampling in secret" if accounting.amplifies else ""
    return (
        f"Differential privacy of whole clients, noise at the {spec.where} (clip {spec.clip:g}, multiplier "
        f"{spec.noise:g}): the budget of ε = {spec.epsilon:g} at δ = {spec.delta:g} allows {room}, ε = "
        f"{accounting.epsilon(most):.2f} ({accounting.accountant}, {accounting.relation}{drawn})."
    )


@dataclass(frozen=True)
class Guard:
    """The conditions under which updates of a process's clients leave. `own` is what a client itself insists on."""

    state: Path
    min_shard: int = 0
    own: PrivacySpec | None = None

    @classmethod
    def of_client(cls, settings: Settings) -> Guard:
        """That of one client in a process of its own. Raises `SettingsError` for noise that is not its to add."""
        if settings.dp_where == "server":
            raise SettingsError("DP_WHERE=server is nothing that a client can see to", hint="use DP_WHERE=client")
        return cls(settings.state_dir, settings.min_shard, privacy_spec(settings))

    @classmethod
    def of_run(cls, settings: Settings) -> Guard:
        """That of clients which are a part of the run. Their budget is the run's own business."""
        return cls(settings.state_dir, settings.min_shard)

    def over(self, learner: Learner) -> PrivateLearner:
        """The learner behind what the clients hold to."""
        return PrivateLearner(learner, StatePaths(self.state).client, self.min_shard, self.own)
