"""`COMBINATIONS`: what goes with differential privacy and with secure aggregation, what does not, and why.

It is the one list of what is sound. A run is refused by it before anything starts (`fccl.library.privacy`,
`fccl.library.secure`), and docs/privacy.md has its table (`make settings-page`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fccl.config import Settings
from fccl.errors import SettingsError

MEANS = ("fedavg", "fedprox", "fedavgm", "fedadagrad", "fedyogi", "fedadam")  # rules that one noised mean is enough for
_BY_REPORTS = ("loss_inverse", "data_loss_combined", "data_size")
_NOT_REPORTED = "it weighs by what clients report of their training, and under differential privacy they report nothing"
_AFTER = "it sees noised updates only"
_BEFORE = "a whole update is clipped and noised, whatever it was computed by"
_MASKED = "a whole update is masked, whatever it was computed by"
_SINGLE = "it looks at single updates, and the server knows their sum alone"
# Of the noise; at the client by DP-SGD (DP_UNIT=example); or the masks of SECURE_AGGREGATION.
Place = Literal["client", "example", "server", "secure"]


@dataclass(frozen=True)
class Combination:
    """A choice beside DP_WHERE or SECURE_AGGREGATION: whether it goes with noise at the client, with noise at the
    server and with masks, and why.

    `setting` is refused under the places of `refused` where `chosen` holds. What noise at the client refuses, DP-SGD
    refuses too; `example` is the reason there, where that is another one.
    """

    setting: str
    what: str  # its values, in words
    client: str
    server: str
    secure: str
    refused: frozenset[Place] = frozenset()
    chosen: Callable[[Settings], bool] = lambda settings: False
    hint: str = "leave one of the two out"
    example: str = ""

    def why(self, place: Place) -> str:
        """The reason, under one place of the noise, or under masks."""
        by_example = self.example or self.client
        return {"client": self.client, "example": by_example, "server": self.server, "secure": self.secure}[place]

    def refuses(self, place: Place) -> bool:
        """Whether it is refused there."""
        return ("client" if place == "example" else place) in self.refused

    def require(self, settings: Settings, place: Place, beside: str) -> None:
        """Raises `SettingsError` where these settings ask for it and it is refused; `beside` is what it does not go
        with.
        """
        if self.refuses(place) and self.chosen(settings):
            raise SettingsError(
                f"{self.setting.upper()}={getattr(settings, self.setting)} does not go with {beside}: "
                f"{self.why(place)}",
                hint=self.hint,
            )


def _weighs(settings: Settings) -> bool:
    return settings.contribution_mode == "cognitive"


def _by_reports(settings: Settings) -> bool:
    return settings.contribution_mode == "cognitive" and settings.contribution_source in _BY_REPORTS


_ALL: frozenset[Place] = frozenset({"client", "server", "secure"})
_BOTH: frozenset[Place] = frozenset({"client", "server"})
_NOT_CLIENT: frozenset[Place] = frozenset({"server", "secure"})
_NOT_SERVER: frozenset[Place] = frozenset({"client", "secure"})
_SERVER: frozenset[Place] = frozenset({"server"})
COMBINATIONS: tuple[Combination, ...] = (
    Combination(
        "dp_unit",
        "example",
        "clients train by DP-SGD",
        "gradients of examples are clipped and noised where the examples are, at the client",
        "it is one of noise at the client",
        _SERVER,
        lambda settings: settings.dp_unit == "example",
        "use DP_WHERE=client, or leave DP_UNIT out",
    ),
    Combination(
        "preference_loss",
        "any; also PREFERENCE_LOSS's own settings",
        _BEFORE,
        _BEFORE,
        _MASKED,
        example="a pair is one example, with its prompt and both responses",
    ),
    Combination(
        "max_grad_norm",
        "any; also WARMUP, LR_SCHEDULE, WEIGHT_DECAY",
        _BEFORE,
        _BEFORE,
        _MASKED,
        example="the optimiser and all around it see noised gradients only",
    ),
    Combination(
        "micro_batch_size",
        "any; also CLIENTS_AT_ONCE, CLIENT_PROCESSES",
        _BEFORE,
        _BEFORE,
        _MASKED,
        example="the clipped gradients have the same sum; clients train one after another in a process",
    ),
    Combination(
        "aggregation",
        "scaffold",
        "its control variates are means of gradients, and would be sent without noise",
        "its control variates are means of gradients, and no noise covers them",
        "its control variates are those of single clients",
        _ALL,
        lambda settings: settings.aggregation == "scaffold",
        "use fedavg or fedprox",
        "its control variates would be means of noised gradients: mostly noise, added to every step",
    ),
    Combination(
        "aggregation",
        "fedavg, fedprox, fedavgm, fedadagrad, fedyogi, fedadam",
        _AFTER,
        "it sees the noised mean only",
        "it sees the mean only",
        example=f"{_AFTER}; FedProx pulls by factors that are noised already",
    ),
    Combination(
        "aggregation",
        "median, trimmed_mean, krum, multi_krum, geometric_median, fedexp, norm_clipping, a class of your own",
        _AFTER,
        "it looks at single updates before the noise, and the noise is measured for a sum",
        _SINGLE,
        _NOT_CLIENT,
        lambda settings: settings.aggregation not in (*MEANS, "scaffold"),
        f"use one of {', '.join(MEANS)}, or DP_WHERE=client alone",
    ),
    Combination(
        "lora_aggregation",
        "factors, freeze_a",
        "frozen factors get no noise",
        "frozen factors get no noise",
        "frozen factors get no masks",
    ),
    Combination(
        "lora_aggregation",
        "fed_sb",
        "the tests of the noise do not cover matrices between frozen factors",
        "the tests of the noise do not cover matrices between frozen factors",
        "the tests of the masks do not cover matrices between frozen factors",
        _ALL,
        lambda settings: settings.lora_aggregation == "fed_sb",
        "use LORA_AGGREGATION=factors or freeze_a",
    ),
    Combination(
        "lora_aggregation",
        "svd, exact, nearly",
        _AFTER,
        "it multiplies the factors of single updates before the noise",
        "it multiplies the factors of single updates",
        _NOT_CLIENT,
        lambda settings: settings.lora_aggregation in ("svd", "exact", "nearly"),
        "use factors or freeze_a, or DP_WHERE=client alone",
    ),
    Combination(
        "update_codec",
        "fp16, int8, int4, int3, topk",
        "a codec changes an update after its noise, int3 and topk over rounds, and the tests of the noise leave it out",
        "the bound is on whole updates, and the bytes of a round would say how many clients have answered",
        "masked numbers are uniform, so no codec makes them fewer, and those of topk would be at other places",
        _ALL,
        lambda settings: settings.update_codec != "fp32",
        "use UPDATE_CODEC=fp32",
    ),
    Combination(
        "contribution_mode",
        "uniform",
        "it looks at nothing",
        "each of the m clients of a round counts 1 / m",
        "each client of the sum counts alike",
    ),
    Combination(
        "contribution_mode",
        "fedavg",
        _NOT_REPORTED,
        _NOT_REPORTED,
        "each client multiplies its change by its own number of examples, and the sum of these is masked too",
        _BOTH,
        lambda settings: settings.contribution_mode == "fedavg",
        "use CONTRIBUTION_MODE=uniform",
    ),
    Combination(
        "contribution_source",
        "loss_inverse, data_loss_combined, data_size",
        _NOT_REPORTED,
        _NOT_REPORTED,
        "it weighs by what single clients report, and they report nothing",
        _ALL,
        _by_reports,
        "use CONTRIBUTION_MODE=uniform, or with SECURE_AGGREGATION fedavg",
    ),
    Combination(
        "contribution_source",
        "verified and all others that look at updates, or a class of your own",
        f"{_AFTER}; a prior by samples is equal for all",
        "weights are an output too: made of un-noised updates they tell of one client through all others",
        _SINGLE,
        _NOT_CLIENT,
        _weighs,
        "use CONTRIBUTION_MODE=uniform, with SECURE_AGGREGATION also fedavg, or DP_WHERE=client alone",
    ),
    Combination(
        "late_updates",
        "next",
        "releases are counted by the clients that a round draws, and a late update is of another round's draw",
        "the noise is measured for the sum of the clients that a round draws, and a late update is none of them",
        "the masks of a late update are those of another round's clients",
        _ALL,
        lambda settings: settings.late_updates == "next",
        "leave LATE_UPDATES out",
    ),
    Combination(
        "open",
        "true",
        "the budget is counted for NUM_CLIENTS clients from start to end",
        "the budget is counted for NUM_CLIENTS clients from start to end",
        "a sum of one client and of others that were made up to join says all of the one",
        _ALL,
        lambda settings: settings.open,
        "leave OPEN out",
    ),
    Combination(
        "client_test_share",
        "above 0",
        "clients would report un-noised losses on examples of their own",
        "clients would report un-noised losses on examples of their own",
        "clients would report losses on examples of their own, and no mask covers those",
        _ALL,
        lambda settings: settings.client_test_share > 0,
        "leave it out",
    ),
    Combination(
        "personalize",
        "finetune, ditto",
        "a personal adapter never leaves its client, but its losses would be reported without noise",
        "a personal adapter never leaves its client, but its losses would be reported without noise",
        "a personal adapter never leaves its client, but its losses would be reported, and no mask covers those",
        _ALL,
        lambda settings: settings.personalize != "off",
        "leave PERSONALIZE out",
    ),
    Combination(
        "original_clients",
        "any",
        "they neither clip nor add noise",
        "over an exchange directory there is no noise at the server",
        "they know the original files alone, and mask nothing",
        _ALL,
        lambda settings: bool(settings.original_client_ids),
        "start `fccl client` in their place",
    ),
    Combination(
        "client_sampling",
        "poisson",
        "the server sees who sends an update, so a draw hides nobody",
        "counted, for the draw is the server's secret",
        "it belongs to DP_WHERE=server",
        _NOT_SERVER,
        lambda settings: settings.client_sampling == "poisson",
        "leave it out",
    ),
    Combination(
        "dp_clip_quantile",
        "above 0",
        "clients would have to say whether their change was clipped",
        "the count is noised too, and both cost what DP_NOISE says",
        "it belongs to DP_WHERE=server",
        _NOT_SERVER,
        lambda settings: settings.dp_clip_quantile > 0,
        "leave it out",
        "clients would have to say how many gradients were clipped",
    ),
    Combination(
        "keep_updates_mb",
        "above 0",
        "what is kept is noised",
        "set to 0: nothing of a single client is kept",
        "set to 0: masked updates say nothing, and there are no others",
    ),
    Combination(
        "max_update_ratio",
        "above 0",
        _AFTER,
        "set to 0: who is excluded would depend on all the others; clipping bounds every change",
        "set to 0: the server sees no change's length; SECURE_CLIP bounds those of clients that follow the protocol",
    ),
    Combination(
        "learn_epochs",
        "above 0; also START_FROM, PATIENCE, RESULT_ROUND, the validation split",
        "the server's own examples",
        "the server's own examples",
        "the server's own examples",
    ),
    Combination(
        "server_only",
        "true",
        "a client that is started with DP_WHERE=client declares one example of each phase that it has",
        "needs an exchange directory, see the last row",
        "a client that is started with SECURE_AGGREGATION=true declares one example of each phase that it has",
        example="clients declare their numbers of examples, which are public here",
    ),
    Combination(
        "secure_aggregation",
        "true",
        "the change is noised before it is masked, so the sum has the noise of every client in it",
        "it clips and noises single updates, and the server would not have them",
        "itself",
        _SERVER,
        lambda settings: settings.secure_aggregation,
        "use DP_WHERE=client, whose noise is added before the masks",
    ),
)
OVER_EXCHANGE = "updates lie in the exchange directory without noise, and its files say whom a round asks"
