"""`Settings`: every knob, with one spelling.

A field's name is the environment variable's name (upper case), the argument's name (`--with-dashes`) and the name in
compose. Argument > environment > `.env` > preset > default. Read by `apps` and `library` only, which narrow it to
the values of `fccl.specs`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from fccl.config.fields import WHOLE_NUMBER, knob, one_line_errors
from fccl.config.machine_settings import AUTO, MachineSettings
from fccl.config.preset_source import PresetSource, without_line_end
from fccl.config.privacy_settings import PrivacySettings
from fccl.config.round_settings import AS_FED_ROUNDS, RoundSettings
from fccl.config.rule_settings import RuleSettings
from fccl.config.site_settings import SiteSettings
from fccl.config.text_settings import TextSettings
from fccl.paths import is_usable
from fccl.presets import BUILTIN_MODEL, MOST_TOKENS
from fccl.specs import (
    Engine,
    ExchangeSpec,
    ModelSpec,
    PartitionSpec,
    Phase,
    PreferenceLoss,
    RoundPlan,
    Schedule,
    TrainSpec,
    require_smooth_labels,
)
from fccl.specs.codecs import CodecName, CodecSpec

DOTENV = ".env"
ALL_LAYERS = "all"  # of LORA_LAYERS
FEWEST_TOKENS = 8


class Settings(RuleSettings, SiteSettings, RoundSettings, TextSettings, PrivacySettings, MachineSettings):
    """All settings. `load_settings` builds it; a value out of range is a `SettingsError` of one line."""

    model_config = SettingsConfigDict(
        env_file=DOTENV, env_file_encoding="utf-8", extra="ignore", frozen=True, env_ignore_empty=True
    )

    preset: Literal["quickstart", "pretrained", "gpt2"] = knob(
        "run",
        "quickstart",
        "a set of defaults: quickstart needs no network, gpt2 is the real thing; where none is named, any model but "
        "builtin:micro takes pretrained",
    )
    seed: int = knob("run", 42, "every random draw derives from it", ge=0)
    evaluate: bool = knob("run", True, "evaluate on the test split when the rounds are done")
    track: Literal["none", "tensorboard", "mlflow", "wandb"] = knob(
        "run", "none", "write every round to a tracker too, with its own settings (MLFLOW_TRACKING_URI, WANDB_MODE ...)"
    )

    sft_data: str = knob(
        "data", "builtin", "instructions: builtin, a hub name, or a .json/.jsonl/.parquet file", min_length=1
    )
    va_data: str = knob(
        "data",
        "builtin",
        "preferences: builtin, a hub name, a file, or synthetic (made from the SFT data)",
        min_length=1,
    )
    max_sft_examples: int = knob("data", 0, "take at most so many instructions; 0 takes all", ge=0)
    max_va_examples: int = knob("data", 0, "take at most so many preference pairs; 0 takes all", ge=0)
    test_examples: int = knob(
        "data", 300, "at most so many of each kind go to the test split (never more than a fifth of the data)", ge=1
    )
    learn_examples: int = knob(
        "data",
        48,
        "at most so many of each kind go to the server's learn split, which weights and server learning may use "
        "(never more than a twentieth)",
        ge=1,
    )
    validation_examples: int = knob(
        "data",
        48,
        "at most so many of each kind go to the server's validation split, by which a run is watched "
        "(never more than a twentieth)",
        ge=1,
    )
    non_iid_alpha: float = knob(
        "data", 0.5, "Dirichlet concentration per topic: small is non-IID, inf is IID", gt=0, allow_inf_nan=True
    )
    size_skew: float = knob("data", 1.0, "samples of the largest client over those of the smallest", ge=1)
    topic_column: str = knob(
        "data",
        "",
        "the column that names a row's topic; empty: topic, category or label when there is one, else TF-IDF clusters",
    )
    num_topics: int = knob("data", 8, "clusters to make of free text without a topic column", ge=1)
    skip_bad_rows: bool = knob("data", False, "leave malformed rows out and count them, instead of stopping")
    noisy_clients: str = knob("data", "", "client numbers, with commas, whose training data is spoilt on purpose")
    noise_kind: Literal["shuffled", "flipped", "duplicated"] = knob(
        "data", "shuffled", "how: answers shuffled, preferences flipped, or rows duplicated"
    )

    model_name: str = knob("model", BUILTIN_MODEL, "a hub name, a local folder, or builtin:micro", min_length=1)
    engine: Engine = knob(
        "model",
        "auto",
        "what computes it: generic (any model), gpt2 (GPT-2 written out, faster), auto: the fastest that can",
    )
    base_precision: Literal["auto", "fp32", "bf16", "int8", "bnb-int8", "bnb-nf4"] = knob(
        "model",
        AUTO,
        "of the frozen base while training: auto is fp32 on a CPU, bf16 on a GPU; int8 needs a CPU, bnb-* bitsandbytes",
    )
    lora_r: int = knob("model", 8, "rank of the LoRA factors", ge=1, le=1024)
    lora_alpha: float = knob("model", 16.0, "LoRA scale: the update is alpha/r times B A", gt=0)
    lora_targets: str = knob(
        "model", "all-linear", "auto (PEFT's choice), all-linear, or module names with commas", min_length=1
    )
    lora_layers: str = knob(
        "model", ALL_LAYERS, "layers that carry LoRA: all, or so many from the top; fewer train faster", min_length=1
    )

    batch_size: int = knob("training", 8, "examples (SFT) or pairs (VA) in a step", ge=1)
    micro_batch_size: int = knob("training", 0, "so many of them at a time, for memory; 0: all of a step at once", ge=0)
    sft_local_epochs: int = knob("training", 1, "passes over a client's instructions in a round", ge=1)
    sft_lr: float = knob("training", 4e-3, "peak learning rate of SFT", gt=0, le=1)
    va_local_epochs: int = knob("training", 1, "passes over a client's pairs in a round", ge=1)
    va_lr: float = knob("training", 2e-4, "peak learning rate of FedVA", gt=0, le=1)
    learn_epochs: int = knob(
        "training", 0, "passes of the server over its learn split after every aggregation; 0: it does not train", ge=0
    )
    learn_lr: float = knob("training", 0.0, "peak learning rate of that; 0: SFT_LR and VA_LR", ge=0, le=1)
    preference_loss: PreferenceLoss = knob("training", "sigmoid", "the loss of preference pairs; sigmoid is DPO")
    dpo_beta: float = knob("training", 0.5, "beta of any preference loss: how much a margin counts", gt=0)
    label_smoothing: float = knob(
        "training", 0.1, "share of the pairs whose preference may be flipped; exo_pair needs some", ge=0, lt=0.5
    )
    simpo_gamma: float = knob("training", 0.5, "the margin that SimPO asks for", ge=0)
    warmup: float = knob("training", 0.1, "share of the local steps in which the learning rate rises", ge=0, le=1)
    lr_schedule: Schedule = knob("training", "linear", "how it falls afterwards, within a round")
    weight_decay: float = knob("training", 0.0, "AdamW's decoupled weight decay", ge=0)
    max_grad_norm: float = knob("training", 1.0, "gradients are clipped to this L2 norm", gt=0)

    num_clients: int = knob("federation", 3, "clients that hold a shard", ge=1, le=100_000)
    clients_per_round: int = knob("federation", 0, "clients drawn for each round; 0 takes all", ge=0)
    min_clients: int = knob(
        "federation", 1, "a round with fewer good updates fails; a client that is told masks for no fewer", ge=1
    )
    max_update_ratio: float = knob(
        "federation",
        100.0,
        "an update whose change is so many times as long as the round's median is excluded; 0: none is for that",
        ge=0,
    )
    keep_updates_mb: int = knob(
        "federation",
        2000,
        "every update is kept in LOG_DIR as it arrived, in so many megabytes; the oldest rounds go first; 0: none is",
        ge=0,
        le=1_000_000_000,
    )
    update_codec: CodecName = knob(
        "federation",
        "fp32",
        "how adapters travel, both ways: fp32: whole; else as changes, in fp16, int8, int4, int3, or their largest "
        "numbers alone (topk)",
    )
    topk_share: float = knob("federation", 0.5, "the share of its numbers that topk sends", gt=0, le=1)
    gen_samples: int = knob("evaluation", 6, "instructions of the test split whose generations are printed", ge=0)
    gen_tokens: int = knob("evaluation", 24, "tokens to generate at most", ge=1)
    gen_temperature: float = knob("evaluation", 0.8, "temperature of the sampled generations", gt=0)
    bootstrap_samples: int = knob("evaluation", 2000, "resamples behind each 95 % interval", ge=100, le=1_000_000)
    eval_batch_size: int = knob("evaluation", 32, "sequences in a forward pass", ge=1)

    exchange_dir: Path = knob("exchange", Path("exchange"), "where orchestrator and clients write for each other")
    keys_dir: str = knob(
        "exchange", "", "folder of keys made by `fccl keys`: everything is signed and checked; empty: nothing is"
    )
    exchange_watch: Literal["auto", "notify", "poll"] = knob(
        "exchange", "auto", "wait by notifications, by looking now and then, or find out which works"
    )

    client_timeout_s: float = knob("orchestrator", 600.0, "a round waits so many seconds for a client that lives", gt=0)
    heartbeat_stale_s: float = knob("orchestrator", 60.0, "a client whose heartbeat is older counts as dead", gt=0)
    round_retries: int = knob(
        "orchestrator", 1, "a round with fewer good updates than MIN_CLIENTS is tried again so often", ge=0
    )
    keep_rounds: int = knob("orchestrator", 2, "finished rounds whose files stay in EXCHANGE_DIR", ge=0)
    open: bool = knob(
        "orchestrator",
        False,
        "clients with a key may join and leave between rounds; NUM_CLIENTS is the number at first",
    )
    original_clients: str = knob(
        "orchestrator", "", "client numbers, with commas, of peers that know only the original files"
    )

    client_id: int = knob("client", 0, "which client this process is: 0 ... NUM_CLIENTS - 1", ge=0)
    heartbeat_s: float = knob("client", 5.0, "a client writes its heartbeat every so many seconds", ge=0.1, le=86_400)
    state_dir: Path = knob(
        "client", Path("state"), "a private folder for each client: its memory and its cache; no other party reads it"
    )
    cache_mb: int = knob(
        "client", 2_000, "megabytes that a client's cache in STATE_DIR may take; 0: it keeps none", ge=0
    )

    data_dir: Path = knob("folders", Path("data"), "shards, the server's splits, and the manifest")
    log_dir: Path = knob("folders", Path("logs"), "records, adapters, evaluation")

    @field_validator("*", mode="before")
    @classmethod
    def _without_line_end(cls, value: Any) -> Any:
        return without_line_end(value)

    @field_validator("noisy_clients", "original_clients")
    @classmethod
    def _client_numbers(cls, text: str) -> str:
        if text and not all(WHOLE_NUMBER.fullmatch(part) for part in text.split(",")):
            raise ValueError("must be client numbers with commas between, such as 0,2")
        return text

    @field_validator("lora_targets")
    @classmethod
    def _modules(cls, text: str) -> str:
        if not any(part.strip() for part in text.split(",")):
            raise ValueError("names nothing; must be auto, all-linear, or module names with commas between")
        return text

    @field_validator("max_length")
    @classmethod
    def _room_for_a_prompt(cls, tokens: int) -> int:
        if 0 < tokens < FEWEST_TOKENS:
            raise ValueError(f"must be a whole number >= {FEWEST_TOKENS}, or 0")
        return tokens

    @field_validator("lora_layers", mode="before")
    @classmethod
    def _counts_layers(cls, value: object) -> str:
        text = str(value).strip()  # 4 and "4" alike
        if text != ALL_LAYERS and not (WHOLE_NUMBER.fullmatch(text) and int(text) > 0):
            raise ValueError("must be all, or a whole number >= 1")
        return text

    @model_validator(mode="after")
    def _labels_are_smooth(self) -> Self:
        require_smooth_labels(self.preference_loss, self.label_smoothing)
        return self

    @field_validator("exchange_dir", "state_dir", "data_dir", "log_dir", mode="before")
    @classmethod
    def _names_a_folder(cls, value: str | Path) -> str | Path:
        if not str(value).strip():  # it would be wherever the command is started
            raise ValueError("names no folder; for the one where you are, write .")
        return value

    @field_validator(
        "sft_data",
        "va_data",
        "model_name",
        "start_from",
        "exchange_dir",
        "keys_dir",
        "state_dir",
        "data_dir",
        "log_dir",
    )
    @classmethod
    def _usable_path(cls, value: str | Path) -> str | Path:
        if not is_usable(value):
            raise ValueError("is no path that can be used: too long, too deep, or not UTF-8")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, dotenv_settings, PresetSource(settings_cls)

    @property
    def noisy_client_ids(self) -> tuple[int, ...]:
        return tuple(sorted({int(part) for part in self.noisy_clients.split(",") if part.strip()}))

    @property
    def original_client_ids(self) -> tuple[int, ...]:
        return tuple(sorted({int(part) for part in self.original_clients.split(",") if part.strip()}))

    def model_spec(self) -> ModelSpec:
        return ModelSpec(
            name=self.model_name,
            lora_r=self.lora_r,
            lora_alpha=self.lora_alpha,
            lora_targets=self.lora_targets,
            lora_layers=None if self.lora_layers == ALL_LAYERS else int(self.lora_layers),
            max_length=self.max_length or MOST_TOKENS,  # a run decides before
            engine=self.engine,
            base_precision="fp32" if self.base_precision == AUTO else self.base_precision,  # a run decides before
            text=self.text_form,
            middle=self.lora_aggregation == "fed_sb",
        )

    def train_spec(self, phase: Phase) -> TrainSpec:
        sft = phase == "sft"
        return TrainSpec(
            epochs=self.sft_local_epochs if sft else self.va_local_epochs,
            learning_rate=self.sft_lr if sft else self.va_lr,
            batch_size=self.batch_size,
            micro_batch_size=self.micro_batch_size,
            warmup=self.warmup,
            schedule=self.lr_schedule,
            weight_decay=self.weight_decay,
            max_grad_norm=self.max_grad_norm,
            preference_loss=self.preference_loss,
            dpo_beta=self.dpo_beta,
            label_smoothing=self.label_smoothing,
            simpo_gamma=self.simpo_gamma,
            prox_mu=self.prox_mu if self.aggregation == "fedprox" else 0.0,
            freeze_a=self.lora_aggregation == "freeze_a",
            lower_ranks=self.lower_ranks,
            threads=self.threads,
            codec=self.codec_spec(),
            personal=self.personal_spec,
        )

    def codec_spec(self) -> CodecSpec:
        """The form in which adapters travel; the share is topk's alone."""
        share = {"share": self.topk_share} if self.update_codec == "topk" else {}
        return CodecSpec(name=self.update_codec, **share)

    def learn_spec(self, phase: Phase) -> TrainSpec | None:
        """The server's own training: as a client's, but without FedProx's pull, and of all directions."""
        if not self.learn_epochs:
            return None
        own = {"epochs": self.learn_epochs, "prox_mu": 0.0, "lower_ranks": False, "personal": None}
        rate = {"learning_rate": self.learn_lr} if self.learn_lr else {}
        return self.train_spec(phase).model_copy(update=own | rate)

    def round_plan(self) -> RoundPlan:
        """Raises `SettingsError` when the numbers of clients contradict each other."""
        per_round = self.clients_per_round or self.num_clients
        with one_line_errors(type(self).model_fields):
            return RoundPlan(
                fed_rounds=self.fed_rounds,
                sft_rounds=None if self.sft_rounds == AS_FED_ROUNDS else self.sft_rounds,
                va_rounds=None if self.va_rounds == AS_FED_ROUNDS else self.va_rounds,
                num_clients=self.num_clients,
                clients_per_round=per_round,
                min_clients=self.min_clients,
                max_update_ratio=self.max_update_ratio,
                lr_schedule=self.round_lr_schedule,
                lr_floor=self.round_lr_floor,
                patience=self.patience,
                result_round=self.result_round,
                late_updates=self.late_updates,
                open=self.open,
                seed=self.seed,
            )

    def exchange_spec(self) -> ExchangeSpec:
        """Raises `SettingsError` when the numbers of clients contradict each other."""
        plan = self.round_plan()
        with one_line_errors(type(self).model_fields):
            return ExchangeSpec(
                num_clients=plan.num_clients,
                quorum=plan.min_clients,
                retries=self.round_retries,
                timeout_s=self.client_timeout_s,
                stale_s=self.heartbeat_stale_s,
                keep_rounds=self.keep_rounds,
                originals=self.original_client_ids,
                watch=self.exchange_watch,
                late=self.late_updates,
                open=self.open,
            )

    def partition_spec(self) -> PartitionSpec:
        alpha = None if math.isinf(self.non_iid_alpha) else self.non_iid_alpha
        named = self.named_clients
        by_data = self.server_only or (named is not None and "num_clients" not in self.model_fields_set)
        return PartitionSpec(
            num_clients=0 if by_data else self.num_clients - self.own_data_clients,
            alpha=alpha,
            size_skew=self.size_skew,
            num_topics=self.num_topics,
            topic_column=self.topic_column,
            clients=named,
            seed=self.seed,
        )
