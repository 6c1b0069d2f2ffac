"""From settings to specs: the one page that knows both."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fccl.aggregation.protocol import Aggregation
from fccl.aggregation.rules import MEANS_OF_PRODUCTS, aggregation, uses_weights
from fccl.config import AUTO, PrivacySettings, RoundSettings, Settings, SiteSettings, group_of, load_settings
from fccl.contribution import rules as contribution
from fccl.contribution.protocol import Weigher
from fccl.errors import SettingsError
from fccl.evaluation.validation import Validator, VerificationLoss
from fccl.extras import require_extra
from fccl.federation.more_rounds import ROUNDS, OtherRounds
from fccl.federation.run_folder import RunFolder
from fccl.library.ignored import ignored_line, refuse_ignored
from fccl.library.own_rules import require_named, require_unchanged
from fccl.library.privacy import with_privacy
from fccl.library.secure import with_secure_sums
from fccl.model.bnb_layers import BNB
from fccl.model.first_update import TAKES
from fccl.model.language_model import GENERIC
from fccl.model.loading import Models
from fccl.model.precision import int8_is_slow, usual_at_once, usual_precision
from fccl.model.text_form import usual_prompt_format
from fccl.model.usual_length import usual_length
from fccl.presets import BETWEEN_PROCESSES, PRESETS
from fccl.records.evaluation import EvaluationOptions
from fccl.records.run import RunInfo
from fccl.specs import DataSpec, RoundPlan
from fccl.training.engines import learner_for

# What a resumed run may be told anew: folders, what it keeps, its processes, and how it waits for its clients.
FREE_TO_CHANGE = frozenset(
    {"data_dir", "log_dir", "evaluate", "track", "keep_updates_mb", "client_processes"}
    | {name for name, field in Settings.model_fields.items() if group_of(field) in BETWEEN_PROCESSES}
)

# What records of earlier versions do not say, and their runs had. Nothing of today's environment may fill it in.
ONCE = {
    "engine": "generic",
    "base_precision": "fp32",
    "prompt_format": "plain",
    "learn_turns": "last",
    "clients_at_once": "1",
    "client_processes": "1",
    "update_codec": "fp32",
    "topk_share": "0.5",
} | {
    name: str(field.default)
    for kind in (SiteSettings, RoundSettings, PrivacySettings)
    for name, field in kind.model_fields.items()
    if name != "fed_rounds"
}

# The values that leave a choice to the start of a run.
OPEN = {**dict.fromkeys(ONCE, AUTO), "max_length": "0"}


def settled(settings: Settings, tell: Callable[[str], None], given: Mapping[str, object]) -> Settings:
    """The settings as they are recorded: where the rule treats all updates alike, no weights are made that nothing
    would use.

    Raises `SettingsError` for an argument that the chosen rules ignore; says those that come from elsewhere.
    """
    refuse_ignored(settings, given)
    if said := ignored_line(settings, given):
        tell(said)
    settings = with_secure_sums(with_privacy(settings, tell, given), tell, given)
    if settings.contribution_mode == "uniform" or uses_weights(settings.aggregation):
        return settings
    said = (
        f"AGGREGATION={settings.aggregation} treats all updates alike: contributions are not weighed "
        "(CONTRIBUTION_MODE=uniform)."
    )
    tell(said)
    return settings.model_copy(update={"contribution_mode": "uniform"})


def begun(settings: Settings, tell: Callable[[str], None]) -> Settings:
    """The settings that a new run is recorded with: what `auto` leaves to this machine is decided.

    `CLIENTS_AT_ONCE=auto` waits for `arranged` where the engine is not known before the model is there.

    Raises `SettingsError` when the engine cannot do what they ask for or a library is missing, `ModelError` when the
    model cannot be had.
    """
    if settings.base_precision == "int8" and int8_is_slow():
        tell("BASE_PRECISION=int8: this processor has no instructions for int8 products; expect fp32 to be faster.")
    if settings.base_precision in BNB:
        require_extra("bitsandbytes", f"BASE_PRECISION={settings.base_precision}")
    decided: dict[str, str | int] = {}
    if not settings.max_length:
        decided["max_length"] = usual_length(settings.model_name)
    if settings.base_precision == AUTO:
        decided["base_precision"] = usual_precision()
    found = _in_a_form(settings.model_copy(update=decided), tell)
    if said := _preset_line(settings, found):
        tell(said)
    known = found.engine != AUTO or usual_at_once() == 1
    return arranged(found, found.engine) if known else found


def arranged(settings: Settings, engine: str) -> Settings:
    """The settings with the number of clients in one batch, once it is known which engine computes the model.

    Raises `SettingsError` when they ask for several of an engine that trains one at a time.
    """
    if settings.clients_at_once == AUTO:
        alone = engine == GENERIC or settings.lora_aggregation == "fed_sb"
        return settings.model_copy(update={"clients_at_once": str(1 if alone else usual_at_once())})
    if settings.at_once > 1 and settings.lora_aggregation == "fed_sb":
        raise SettingsError(
            f"CLIENTS_AT_ONCE={settings.clients_at_once}: LORA_AGGREGATION=fed_sb trains one client at a time",
            hint="leave it out",
        )
    if settings.at_once > 1 and engine == GENERIC:
        raise SettingsError(
            f"CLIENTS_AT_ONCE={settings.clients_at_once}: the engine generic, which computes {settings.model_name}, "
            "trains one client at a time",
            hint="leave it out; the engine gpt2 trains several clients of a plain GPT-2 in one batch",
        )
    return settings


def _preset_line(settings: Settings, found: Settings) -> str:
    """A line on the values that a model of one's own has from its preset; empty where there are none."""
    values = PRESETS["pretrained"] if settings.preset == "pretrained" else {}
    kept = [name for name, value in values.items() if getattr(settings, name) == value]
    said = ", ".join(f"{name.upper()}={getattr(found, name)}" for name in kept)
    return f"PRESET=pretrained for {settings.model_name}: {said}. What you set yourself wins." if kept else ""


def _in_a_form(settings: Settings, tell: Callable[[str], None]) -> Settings:
    """The settings with the form of the prompts decided by the model. Raises `ModelError` when it cannot be had."""
    if settings.prompt_format == AUTO:
        found = usual_prompt_format(settings.model_name)
        if found == "chat":
            tell(f"PROMPT_FORMAT=chat: {settings.model_name} has a chat template.")
        elif settings.learn_turns == "all":
            raise SettingsError(
                f"LEARN_TURNS=all: {settings.model_name} has no chat template, so a conversation has one response",
                hint="leave LEARN_TURNS out, or use a model that has a chat template",
            )
        settings = settings.model_copy(update={"prompt_format": found})
    return settings


def each_alone(settings: Settings, given: Mapping[str, object], why: str) -> Settings:
    """The settings where clients cannot train in one batch or side by side, for the reason given.

    Raises `SettingsError` for an argument that asks for it.
    """
    for name, several in (("clients_at_once", settings.at_once), ("client_processes", settings.client_processes)):
        if name in given and several > 1:
            raise SettingsError(f"{name.upper()}={several}: {why}", hint="leave it out; `fccl run` reads it")
    return settings.model_copy(update={"clients_at_once": "1", "client_processes": 1})


def settings_of(info: RunInfo, **changes: str) -> Settings:
    """The settings that a run was started with, but for these changes.

    Raises `SettingsError` when this version cannot read them.
    """
    return load_settings({**ONCE, **info.settings, **changes})


def leaves_open(name: str, value: object) -> bool:
    """Whether this value lets a run keep what it has, of what is chosen once, when a run starts."""
    return OPEN.get(name) == str(value)


def recorded_settings(folder: RunFolder, settings: Settings, given: Mapping[str, object]) -> Settings:
    """The settings that the run was started with, with the numbers of rounds that are given now.

    Raises `SettingsError` when an argument contradicts them or has no effect under them, and when the run uses a class
    that this command does not name, or that has changed.
    """
    info = folder.recorded("resume")
    _require_learn_split(folder, info)
    for name in given:
        now, has = str(getattr(settings, name)), info.settings.get(name, ONCE.get(name))
        if name not in FREE_TO_CHANGE and name not in ROUNDS and has != now and not leaves_open(name, now):
            raise SettingsError(
                f"{name.upper()}={now}: the run to resume has {has}",
                hint="a resumed run keeps its settings; leave it out",
            )
    require_named(info.settings, settings)
    told = {name for name in ROUNDS if name in given}
    recorded = settings_of(info, **{name: str(getattr(settings, name)) for name in FREE_TO_CHANGE | told})
    require_unchanged(info.rules, recorded)
    refuse_ignored(recorded, given)
    return recorded


def rounds_asked(folder: RunFolder, settings: Settings, resume: bool, redo_va: bool) -> OtherRounds | None:
    """The change of the run's numbers of rounds that these settings of a resumed run ask for, if they ask for any.

    Raises `SettingsError` when it cannot be made, before anything is loaded.
    """
    if not resume:
        if redo_va:
            raise SettingsError("--redo-va goes with --resume", hint="a new run does all of its rounds")
        return None
    other = OtherRounds(
        folder.paths, folder.state_here(), settings_of(folder.recorded("resume")).round_plan(), settings.round_plan()
    )
    other.require_possible(redo_va)
    return other if other.is_change else None


def plan_as_it_went(settings: Settings, folder: RunFolder) -> RoundPlan:
    """The plan, with the rounds that those phases had which ended early."""
    state = folder.state()
    return settings.round_plan().as_it_went(state.early if state else {})


def _require_learn_split(folder: RunFolder, info: RunInfo) -> None:
    """Raises `SettingsError` for a run of version 0.1: its data cannot be prepared any more."""
    if "learn_examples" not in info.settings:
        raise SettingsError(
            f"the run in {folder.paths.root} was begun by an earlier version, whose data has no learn split",
            hint="begin another one without resuming it; this one is kept in runs/",
        )


# Sources that divide by a loss.
_DIVIDES_BY_LOSS = ("loss_inverse", "data_loss_combined", "validation_loss")


def require_scores(settings: Settings) -> None:
    """Raises `SettingsError` where the source divides by a loss that may be negative."""
    weighed = settings.contribution_mode == "cognitive" and settings.contribution_source in _DIVIDES_BY_LOSS
    if weighed and settings.train_spec("va").preference.may_be_negative:
        raise SettingsError(
            f"CONTRIBUTION_SOURCE={settings.contribution_source} divides by the loss, and "
            f"PREFERENCE_LOSS={settings.preference_loss} may be negative",
            hint="choose CONTRIBUTION_SOURCE=verified, leave_one_out or data_size",
        )


def require_late_updates(settings: Settings) -> None:
    """Raises `SettingsError` under rules for which a change from another adapter, or its discount, means nothing."""
    rules = f"AGGREGATION={settings.aggregation}", f"LORA_AGGREGATION={settings.lora_aggregation}"
    if settings.late_updates == "drop":
        return
    if settings.aggregation == "scaffold":
        raise _no_late_updates(f"{rules[0]}: a control variate is of the adapter that its round began with")
    if settings.lora_aggregation in MEANS_OF_PRODUCTS:
        raise _no_late_updates(f"{rules[1]}: it averages products of factors, to which changes of factors do not add")
    if not uses_weights(settings.aggregation):
        raise _no_late_updates(f"{rules[0]}: it treats all updates alike, and a late one is to count for less")


def _no_late_updates(why: str) -> SettingsError:
    return SettingsError(f"LATE_UPDATES=next does not go with {why}", hint="leave LATE_UPDATES out, or use fedavg")


def require_codec(settings: Settings) -> None:
    """Raises `SettingsError` where updates in a codec are not what the rule computes with."""
    if settings.update_codec == "fp32":
        return
    topk = settings.update_codec == "topk"
    obstacles = {
        "LATE_UPDATES=next: a late change is of an adapter that is no longer the round's": settings.late_updates
        == "next",
        "AGGREGATION=scaffold: control variates travel whole, and they are no changes": (
            settings.aggregation == "scaffold"
        ),
        f"LORA_AGGREGATION={settings.lora_aggregation}: the server writes all factors anew in every round, so their "
        "change says little": settings.lora_aggregation in ("svd", "exact"),
        f"AGGREGATION={settings.aggregation}: of changes that are mostly zero the middle is zero": (
            topk and settings.aggregation in ("median", "trimmed_mean")
        ),
        f"AGGREGATION={settings.aggregation}: changes that share few places are all equally far apart": (
            topk and settings.aggregation in ("krum", "multi_krum", "geometric_median")
        ),
    }
    for obstacle, is_there in obstacles.items():
        if is_there:
            raise SettingsError(
                f"UPDATE_CODEC={settings.update_codec} does not go with {obstacle}",
                hint="use UPDATE_CODEC=fp32" if settings.aggregation == "scaffold" else "use another of the two",
            )


def require_fed_sb(settings: Settings) -> None:
    """Raises `SettingsError` where nobody could train the matrices between frozen factors."""
    if settings.lora_aggregation != "fed_sb":
        return
    obstacles = {
        "AGGREGATION=scaffold: its control variates are of whole adapters": settings.aggregation == "scaffold",
        "PERSONALIZE=ditto: its clients pull whole adapters": settings.personalize == "ditto",
        f"BASE_PRECISION={settings.base_precision}: the first gradient is of the weights, which it rounds": (
            settings.base_precision not in (AUTO, *TAKES)
        ),
    }
    for obstacle, is_there in obstacles.items():
        if is_there:
            raise SettingsError(
                f"LORA_AGGREGATION=fed_sb does not go with {obstacle}", hint="use another of the two, or leave it out"
            )


def weigher(settings: Settings, learn: Validator) -> Weigher:
    """FCCL as the settings ask for it; `learn` has the examples that weights may use."""
    return contribution.weigher(
        settings.contribution_mode,
        settings.contribution_source,
        settings.model_dump(),
        lambda: VerificationLoss(learn, settings.verify_examples, lambda model: learner_for(Models.holding(model))),
    )


def aggregation_rule(settings: Settings) -> Aggregation:
    """The rule that makes the next adapter of weighted updates, as the settings ask for it.

    Raises `SettingsError` for two that do not go together.
    """
    require_codec(settings)
    others = settings.model_dump(exclude={"aggregation", "lora_aggregation", "lora_r"})
    return aggregation(settings.aggregation, settings.lora_aggregation, settings.lora_r, **others)


def require_client_ranks(settings: Settings) -> None:
    """Raises `SettingsError` unless this federation can have clients of the ranks that the settings give them."""
    ranks, given = settings.client_ranks, f"CLIENT_LORA_R={settings.client_lora_r}"
    if len(ranks) > 1 and len(ranks) != settings.num_clients:
        raise SettingsError(
            f"{given} has {len(ranks)} ranks, NUM_CLIENTS is {settings.num_clients}",
            hint="give one for all, or one for each",
        )
    if max(ranks, default=0) > settings.lora_r:
        raise SettingsError(
            f"{given}: at most LORA_R={settings.lora_r} is possible", hint="raise --lora-r to the largest rank"
        )
    if min(ranks, default=settings.lora_r) < settings.lora_r and not settings.lower_ranks:
        raise SettingsError(
            f"{given} does not go with LORA_AGGREGATION={settings.lora_aggregation}", hint="use svd or exact"
        )


def data_spec(settings: Settings) -> DataSpec:
    """The settings, narrowed to what the data preparation is to do.

    Raises `SettingsError` where clients are at once dealt data, or spoilt, and bring their own.
    """
    _require_parted(settings)
    for name in ("client_column", "noisy_clients") if settings.server_only else ():
        if getattr(settings, name):
            raise SettingsError(
                f"{name.upper()}={getattr(settings, name)} does not go with SERVER_ONLY: clients bring their own data",
                hint="leave one of the two out",
            )
    return DataSpec(
        sft_data=settings.sft_data,
        va_data=settings.va_data,
        max_sft_examples=settings.max_sft_examples,
        max_va_examples=settings.max_va_examples,
        test_examples=settings.test_examples,
        learn_examples=settings.learn_examples,
        validation_examples=settings.validation_examples,
        skip_bad_rows=settings.skip_bad_rows,
        partition=settings.partition_spec(),
        noisy_clients=settings.noisy_client_ids,
        noise_kind=settings.noise_kind,
        server_only=settings.server_only,
        client_test_share=settings.shard_test_share,
    )


def _require_parted(settings: Settings) -> None:
    """Raises `SettingsError` unless clients with own data are some beside others whose shards are dealt by a draw."""
    count = settings.own_data_clients
    others = {
        "SERVER_ONLY=true": settings.server_only,
        f"CLIENT_COLUMN={settings.client_column}": settings.client_column,
    }
    for other, is_set in others.items():
        if count and is_set:
            raise SettingsError(f"OWN_DATA_CLIENTS={count} does not go with {other}", hint="leave one of the two out")
    if count and count >= settings.num_clients:
        line = f"OWN_DATA_CLIENTS={count}: of NUM_CLIENTS={settings.num_clients} nobody is left with a shard"
        raise SettingsError(line, hint="use SERVER_ONLY where every client brings its own data")


def evaluation_options(settings: Settings, seed: int) -> EvaluationOptions:
    """The settings, narrowed to what an evaluation of the whole test split does."""
    return EvaluationOptions(
        gen_samples=settings.gen_samples,
        gen_tokens=settings.gen_tokens,
        gen_temperature=settings.gen_temperature,
        bootstrap_samples=settings.bootstrap_samples,
        batch_size=settings.eval_batch_size,
        seed=seed,
    )
