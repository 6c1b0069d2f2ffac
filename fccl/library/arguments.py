"""The keyword arguments of the library: the settings, by group, with their types.

This file is made by `make settings-page` from `fccl/config/`; docs/settings.md says what each setting does.
"""

from __future__ import annotations

import os
from typing import Literal, TypedDict


class RunArguments(TypedDict, total=False):
    """Settings of the group run."""

    threads: int
    preset: Literal["quickstart", "pretrained", "gpt2"]
    seed: int
    evaluate: bool
    track: Literal["none", "tensorboard", "mlflow", "wandb"]


class DataArguments(TypedDict, total=False):
    """Settings of the group data."""

    client_column: str
    min_client_examples: int
    small_clients: Literal["merge", "drop"]
    anonymize_clients: bool
    server_only: bool
    own_data_clients: int
    client_test_share: float
    sft_data: str
    va_data: str
    max_sft_examples: int
    max_va_examples: int
    test_examples: int
    learn_examples: int
    validation_examples: int
    non_iid_alpha: float
    size_skew: float
    topic_column: str
    num_topics: int
    skip_bad_rows: bool
    noisy_clients: str
    noise_kind: Literal["shuffled", "flipped", "duplicated"]


class ModelArguments(TypedDict, total=False):
    """Settings of the group model."""

    prompt_format: Literal["auto", "plain", "chat"]
    learn_turns: Literal["last", "all"]
    max_length: int
    start_from: str
    model_name: str
    engine: Literal["generic", "gpt2", "auto"]
    base_precision: Literal["auto", "fp32", "bf16", "int8", "bnb-int8", "bnb-nf4"]
    lora_r: int
    lora_alpha: float
    lora_targets: str
    lora_layers: str


class TrainingArguments(TypedDict, total=False):
    """Settings of the group training."""

    client_processes: int
    clients_at_once: str
    round_lr_schedule: Literal["constant", "linear", "cosine"]
    round_lr_floor: float
    personalize: Literal["off", "finetune", "ditto"]
    ditto_lambda: float
    batch_size: int
    micro_batch_size: int
    sft_local_epochs: int
    sft_lr: float
    va_local_epochs: int
    va_lr: float
    learn_epochs: int
    learn_lr: float
    preference_loss: Literal[
        "sigmoid",
        "sigmoid_norm",
        "hinge",
        "ipo",
        "robust",
        "exo_pair",
        "nca_pair",
        "bco_pair",
        "sppo_hard",
        "apo_zero",
        "apo_down",
        "discopop",
        "simpo",
        "cpo",
        "orpo",
    ]
    dpo_beta: float
    label_smoothing: float
    simpo_gamma: float
    warmup: float
    lr_schedule: Literal["constant", "linear", "cosine"]
    weight_decay: float
    max_grad_norm: float


class FederationArguments(TypedDict, total=False):
    """Settings of the group federation."""

    fed_rounds: int
    sft_rounds: int
    va_rounds: int
    patience: int
    result_round: Literal["best", "last"]
    late_updates: Literal["drop", "next"]
    num_clients: int
    clients_per_round: int
    min_clients: int
    max_update_ratio: float
    keep_updates_mb: int
    update_codec: Literal["fp32", "fp16", "int8", "int4", "topk", "int3"]
    topk_share: float


class ContributionArguments(TypedDict, total=False):
    """Settings of the group contribution."""

    max_client_samples: int
    contribution_mode: Literal["cognitive", "uniform", "fedavg"]
    contribution_source: str | type
    contribution_temperature: float
    contribution_normalize: Literal["mean", "none"]
    verify_steps: int
    verify_examples: int
    verify_temperature: float
    verify_prior: Literal["samples", "uniform"]
    tempered_ratio: float
    fltrust_lr: float
    fedlaw_lr: float
    lorahub_steps: int
    lorahub_penalty: float
    fedawa_lr: float


class AggregationArguments(TypedDict, total=False):
    """Settings of the group aggregation."""

    aggregation: str | type
    lora_aggregation: Literal["factors", "svd", "exact", "nearly", "freeze_a", "fed_sb"]
    client_lora_r: str
    prox_mu: float
    server_lr: float
    server_momentum: float
    server_beta2: float
    server_tau: float
    max_bad_clients: int
    krum_keep: int
    fedexp_epsilon: float
    clip_norm: float


class PrivacyArguments(TypedDict, total=False):
    """Settings of the group privacy."""

    dp_where: Literal["none", "client", "server"]
    dp_unit: Literal["client", "example"]
    dp_clip: float
    dp_clip_quantile: float
    dp_noise: float
    dp_epsilon: float
    dp_delta: float
    client_sampling: Literal["fixed", "poisson"]
    secure_aggregation: bool
    secure_clip: float
    secure_max_samples: int
    secure_threshold: float


class EvaluationArguments(TypedDict, total=False):
    """Settings of the group evaluation."""

    gen_samples: int
    gen_tokens: int
    gen_temperature: float
    bootstrap_samples: int
    eval_batch_size: int


class ExchangeArguments(TypedDict, total=False):
    """Settings of the group exchange."""

    exchange_dir: str | os.PathLike[str]
    keys_dir: str
    exchange_watch: Literal["auto", "notify", "poll"]


class OrchestratorArguments(TypedDict, total=False):
    """Settings of the group orchestrator."""

    client_timeout_s: float
    heartbeat_stale_s: float
    round_retries: int
    keep_rounds: int
    open: bool
    original_clients: str


class ClientArguments(TypedDict, total=False):
    """Settings of the group client."""

    min_shard: int
    client_id: int
    heartbeat_s: float
    state_dir: str | os.PathLike[str]
    cache_mb: int


class FoldersArguments(TypedDict, total=False):
    """Settings of the group folders."""

    data_dir: str | os.PathLike[str]
    log_dir: str | os.PathLike[str]
