"""From settings to differential privacy: the spec, what goes with it and what does not, and what a client holds to.

`fccl.library.combinations` has the list of what is sound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from fccl.config import Settings
from fccl.display.words import plural
from fccl.errors import SettingsError
from fccl.extras import require_extra
from fccl.federation.example_noise import ExampleNoise
from fccl.federation.privacy import ClientNoise, RunPrivacy
from fccl.federation.server_noise import ServerNoise
from fccl.keys import Keys
from fccl.library.combinations import COMBINATIONS, OVER_EXCHANGE, Place
from fccl.messages import Learner, by_example
from fccl.paths import LogPaths, StatePaths
from fccl.privacy.accountant import accounting_of, smallest_noise
from fccl.privacy.spec import PrivacySpec
from fccl.specs import PHASES, Phase
from fccl.training.declaring import Declarer
from fccl.training.masking import Masking
from fccl.training.private import PrivateLearner

_SET_TO_0 = ("keep_updates_mb", "max_update_ratio")  # with noise at the server, and under masks


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
        unit=settings.dp_unit,
    )


def run_privacy(settings: Settings, known: Mapping[Phase, Mapping[int, int]] | None = None) -> RunPrivacy | None:
    """The differential privacy of a run of these settings, at its server. `known` are numbers of examples by client."""
    if (spec := privacy_spec(settings)) is None:
        return None
    plan = settings.round_plan()
    if spec.unit == "example":
        return ExampleNoise(spec, plan, {phase: settings.train_spec(phase) for phase in PHASES}, known or {})
    if spec.where == "client":
        return ClientNoise(spec, plan)
    return ServerNoise(spec, plan, LogPaths(settings.log_dir).private)


def require_sound(settings: Settings) -> None:
    """Raises `SettingsError` for what does not go with differential privacy, or a budget that allows no round."""
    if (spec := privacy_spec(settings)) is None:
        return
    place: Place = "example" if (spec.where, spec.unit) == ("client", "example") else spec.where
    for each in COMBINATIONS:
        each.require(settings, place, f"DP_WHERE={spec.where}")
    if spec.unit == "client":
        _require_room(settings, spec)


def require_learner(settings: Settings, learner: Learner | None) -> None:
    """Raises `SettingsError` for a learner of somebody's own that does not train by DP-SGD, where it must."""
    if settings.dp_where != "none" and settings.dp_unit == "example" and learner is not None:
        by_example(learner)


def _require_room(settings: Settings, spec: PrivacySpec) -> None:
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
    if settings.dp_where == "server":
        settings = with_nothing_kept(settings, given, "server", "DP_WHERE=server")
    settings = without_own_tests(settings)
    require_sound(settings)
    tell(_said(settings, cast(PrivacySpec, privacy_spec(settings))))
    return settings


def with_nothing_kept(settings: Settings, given: Mapping[str, object], place: Place, beside: str) -> Settings:
    """The settings without what needs single updates at the server.

    Raises `SettingsError` for an argument that asks for it.
    """
    asked = [name for name in _SET_TO_0 if getattr(settings, name)]
    for name in asked:
        if name in given:
            why = next(each.why(place) for each in COMBINATIONS if each.setting == name).removeprefix("set to 0: ")
            raise SettingsError(
                f"{name.upper()}={getattr(settings, name)} does not go with {beside}: {why}", hint="leave it out"
            )
    return settings.model_copy(update=dict.fromkeys(asked, 0))


def without_own_tests(settings: Settings) -> Settings:
    """The settings of clients that keep no examples apart, unless a share of them is asked for."""
    return settings.model_copy(update={"client_test_share": 0.0}) if settings.client_test_share < 0 else settings


def _said(settings: Settings, spec: PrivacySpec) -> str:
    if spec.unit == "example":
        return (
            f"Differential privacy of single examples: clients train by DP-SGD (clip {spec.clip:g}, multiplier "
            f"{spec.noise:g}; the budget is ε = {spec.epsilon:g} at δ = {spec.delta:g}). A client's ε follows from "
            "its number of examples."
        )
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
    """The conditions under which updates of a process's clients leave. `own` is what a client itself insists on;
    `only_masked` refuses rounds without a secure sum.
    """

    state: Path
    min_shard: int = 0
    own: PrivacySpec | None = None
    only_masked: bool = False
    threshold: float = 0.5  # the share of clients that a secure sum must need
    least: int = 2  # clients of a secure sum

    @classmethod
    def of_client(cls, settings: Settings) -> Guard:
        """That of one client in a process of its own. Raises `SettingsError` for noise that is not its to add."""
        if settings.dp_where == "server":
            raise SettingsError("DP_WHERE=server is nothing that a client can see to", hint="use DP_WHERE=client")
        own = settings.min_shard, privacy_spec(settings), settings.secure_aggregation, settings.secure_threshold
        return cls(settings.state_dir, *own, max(2, settings.min_clients))

    @classmethod
    def of_run(cls, settings: Settings) -> Guard:
        """That of clients which are a part of the run. Their budget is the run's own business."""
        return cls(settings.state_dir, settings.min_shard)

    @property
    def says_nothing(self) -> bool:
        """Whether the client itself insists on it that no figure of its own leaves."""
        return self.own is not None or self.only_masked

    def declarer(self) -> Declarer:
        """The declarations of a client under these conditions. Its number of examples is public where the unit is the
        example and nothing is masked.
        """
        public = self.own is not None and self.own.unit == "example" and not self.only_masked
        return Declarer(bare=self.says_nothing and not public, marks=not self.says_nothing)

    def masking(self, keys: Keys | None = None) -> Masking:
        """The clients' part in secure sums; with keys, of those alone who have signed."""
        return Masking(StatePaths(self.state).client, keys, self.threshold, self.least)

    def over(self, learner: Learner, keys: Keys | None = None) -> PrivateLearner:
        """The learner behind what the clients hold to."""
        held = StatePaths(self.state).client, self.min_shard, self.own
        return PrivateLearner(learner, *held, self.masking(keys), self.only_masked)
