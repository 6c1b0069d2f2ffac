"""Settings that the chosen rules do not read: an argument is refused, one from elsewhere is said once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from fccl.aggregation import rules as aggregation
from fccl.config import Settings, set_elsewhere
from fccl.contribution import rules as contribution
from fccl.errors import SettingsError
from fccl.specs import SMOOTHED, PreferenceLoss

# Read by no rule: the settings that it qualifies, one of which must be set.
QUALIFIES: Mapping[str, tuple[str, ...]] = {
    "noise_kind": ("noisy_clients",),
    "learn_lr": ("learn_epochs",),
    **dict.fromkeys(("min_client_examples", "small_clients", "anonymize_clients"), ("client_column",)),
    "max_client_samples": ("server_only", "own_data_clients"),
    **dict.fromkeys(("secure_clip", "secure_max_samples", "secure_threshold"), ("secure_aggregation",)),
    **dict.fromkeys(
        ("dp_unit", "dp_clip", "dp_clip_quantile", "dp_noise", "dp_epsilon", "dp_delta", "client_sampling"),
        ("dp_where",),
    ),
}
# Of a draw that does not take place where the data names the clients.
DRAWN = ("non_iid_alpha", "size_skew")
# What a setting is called that asks for nothing.
_NONE = {
    **dict.fromkeys(("learn_epochs", "own_data_clients"), "0"),
    **dict.fromkeys(("server_only", "secure_aggregation"), "false"),
    "dp_where": "none",
}
_UNSET = ("", 0, False, "none")
FALLING = ("linear", "cosine")  # values of ROUND_LR_SCHEDULE
PREFERENCE_READS: Mapping[str, tuple[PreferenceLoss, ...]] = {
    "label_smoothing": tuple(sorted(SMOOTHED)),
    "simpo_gamma": ("simpo",),
}
CODEC_READS: Mapping[str, tuple[str, ...]] = {"topk_share": ("topk",)}
PERSONAL_READS: Mapping[str, tuple[str, ...]] = {"ditto_lambda": ("ditto",)}
PROMPT_READS: Mapping[str, tuple[str, ...]] = {"learn_turns": ("auto", "chat")}


def readers(name: str) -> dict[str, tuple[str, ...]]:
    """Under which settings and which of their values this one is read; empty where that does not depend on them.

    >>> readers("krum_keep"), readers("seed")
    ({'AGGREGATION': ('multi_krum',)}, {})
    """
    found = {
        "CONTRIBUTION_SOURCE": _readers(name, {key: rule.settings for key, rule in contribution.RULES.items()}),
        "AGGREGATION": _readers(name, {key: rule.settings for key, rule in aggregation.RULES.items()}),
        "LORA_AGGREGATION": _readers(name, aggregation.LORA_READS),
        "PREFERENCE_LOSS": PREFERENCE_READS.get(name, ()),
        "ROUND_LR_SCHEDULE": FALLING if name == "round_lr_floor" else (),
        "PROMPT_FORMAT": PROMPT_READS.get(name, ()),
        "UPDATE_CODEC": CODEC_READS.get(name, ()),
        "PERSONALIZE": PERSONAL_READS.get(name, ()),
    }
    if name == "contribution_source":
        found["CONTRIBUTION_MODE"] = ("cognitive",)
    return {setting: values for setting, values in found.items() if values}


def _readers(name: str, table: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    return tuple(key for key, settings in table.items() if name in settings)


def ignored(settings: Settings) -> frozenset[str]:
    """The settings that only some rules read, and the chosen ones do not."""
    known = settings.model_dump()
    weighed = aggregation.uses_weights(settings.aggregation)
    read = aggregation.reads(settings.aggregation, settings.lora_aggregation, known)
    if weighed:
        read |= contribution.reads(settings.contribution_mode, settings.contribution_source, known)
    read |= {name for name, losses in PREFERENCE_READS.items() if settings.preference_loss in losses}
    read |= {"round_lr_floor"} if settings.round_lr_schedule in FALLING else set()
    read |= {name for name, forms in PROMPT_READS.items() if settings.prompt_format in forms}
    read |= {name for name, codecs in CODEC_READS.items() if settings.update_codec in codecs}
    read |= {name for name, kinds in PERSONAL_READS.items() if settings.personalize in kinds}
    names = {name for name in Settings.model_fields if readers(name)} - read
    names |= unqualified(settings)
    return frozenset(names if weighed or settings.contribution_mode == "uniform" else names | {"contribution_mode"})


def unqualified(settings: Settings) -> frozenset[str]:
    """The settings that qualify another one which is not set, or a draw that does not take place. Asks no rule."""
    names = {name for name, others in QUALIFIES.items() if all(getattr(settings, other) in _UNSET for other in others)}
    return frozenset(names | set(DRAWN if settings.client_column or settings.server_only else ()))


def refuse_ignored(settings: Settings, given: Mapping[str, object]) -> None:
    """Raises `SettingsError` for an argument that the chosen rules do not read."""
    _refuse(ignored(settings), settings, given)


def refuse_unqualified(settings: Settings, given: Mapping[str, object]) -> None:
    """Raises `SettingsError` for an argument that has no effect whatever the rules are."""
    _refuse(unqualified(settings), settings, given)


def _refuse(without_effect: Collection[str], settings: Settings, given: Mapping[str, object]) -> None:
    for name in given:
        if name in without_effect:
            flag = "--" + name.replace("_", "-")
            raise SettingsError(f"{flag} has no effect {_because(name, settings)}", hint=_hint(name, settings))


def ignored_line(settings: Settings, given: Mapping[str, object]) -> str:
    """A line on settings from the environment or `.env` that have no effect; empty when there are none."""
    without_effect = ignored(settings)
    by_place: dict[str, list[str]] = {}
    for name, where in set_elsewhere().items():
        if name in without_effect and name not in given:
            by_place.setdefault(where, []).append(name.upper())
    parts = [f"{', '.join(sorted(names))} (from {where})" for where, names in by_place.items()]
    return f"Settings without effect under the chosen rules: {'; '.join(parts)}." if parts else ""


def read_by(name: str) -> str:
    """The readers of a setting, in words: for `--help` and the settings page; empty where that depends on nothing.

    >>> read_by("krum_keep")
    'AGGREGATION=multi_krum'
    """
    if name in DRAWN:
        return "an empty CLIENT_COLUMN, without SERVER_ONLY"
    if name in QUALIFIES:
        return " or ".join(f"{other.upper()} that is not {_NONE.get(other, 'empty')}" for other in QUALIFIES[name])
    return " or ".join(f"{setting}={', '.join(values)}" for setting, values in readers(name).items())


def _because(name: str, settings: Settings) -> str:
    if name in QUALIFIES:
        return f"without {' or '.join(map(str.upper, QUALIFIES[name]))}"
    if name in DRAWN:
        return f"beside {'CLIENT_COLUMN' if settings.client_column else 'SERVER_ONLY'}: nothing is dealt by a draw"
    if not aggregation.uses_weights(settings.aggregation) and _weighs(name):
        return f"under AGGREGATION={settings.aggregation}, which treats all updates alike"
    if settings.contribution_mode != "cognitive" and _weighs(name):
        return f"under CONTRIBUTION_MODE={settings.contribution_mode}"
    return "under " + " and ".join(f"{setting}={getattr(settings, setting.lower())}" for setting in readers(name))


def _weighs(name: str) -> bool:
    return name == "contribution_mode" or bool({"CONTRIBUTION_SOURCE", "CONTRIBUTION_MODE"} & set(readers(name)))


def _hint(name: str, settings: Settings) -> str:
    return f"leave it out; it is read under {read_by(name)}" if read_by(name) else "leave it out"
