"""Settings that a command's groups hold and the command refuses, each with the reason and a hint. Loads nothing
heavy.
"""

from __future__ import annotations

from collections.abc import Mapping

Refusal = tuple[str, str]  # the reason, the hint

_DECIDED: Refusal = (
    "the scenarios and methods decide this",
    "choose with --scenarios and --methods; or use `fccl run`",
)
_UNUSED: Refusal = ("a comparison has no use for it", "leave it out; --out names the folder that everything goes to")
_DEALT: Refusal = ("a comparison deals the data by its own scenarios", "leave it out; --scenarios chooses them")
_IN_TURN: Refusal = ("a comparison trains its clients one after another", "leave it out; `fccl run` reads it")
_APART: Refusal = ("the clients are other processes, and each trains alone", "leave it out; `fccl run` reads it")

BY_COMPARE: Mapping[str, Refusal] = {
    **dict.fromkeys(
        (
            *("contribution_mode", "contribution_source", "aggregation", "lora_aggregation", "learn_epochs"),
            *("max_bad_clients", "max_update_ratio", "min_clients", "clients_per_round"),
            *("non_iid_alpha", "size_skew", "noisy_clients", "noise_kind"),
        ),
        _DECIDED,
    ),
    **dict.fromkeys(
        (
            *("data_dir", "evaluate", "track", "gen_samples", "gen_tokens", "gen_temperature", "client_lora_r"),
            *("start_from", "patience", "result_round", "sft_rounds", "va_rounds", "keep_updates_mb", "late_updates"),
            *("client_test_share", "personalize", "ditto_lambda"),
        ),
        _UNUSED,
    ),
    **dict.fromkeys(
        ("client_column", "min_client_examples", "small_clients", "anonymize_clients", "server_only"),
        _DEALT,
    ),
    **dict.fromkeys(("clients_at_once", "client_processes"), _IN_TURN),
}
BY_ORCHESTRATOR: Mapping[str, Refusal] = dict.fromkeys(("clients_at_once", "client_processes"), _APART)
BY_FLOWER: Mapping[str, Refusal] = {
    **BY_ORCHESTRATOR,
    "original_clients": (
        "peers that know only the original files are not reached by Flower",
        "leave it out, or use `fccl orchestrator`",
    ),
    "open": (
        "over Flower the members are fixed, for sites' statements do not travel",
        "leave it out, or use `fccl orchestrator`",
    ),
}
