"""Run views of any size, made from a seed: what a folder of such a run would be read as."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from fccl.paths import LogPaths
from fccl.records.evaluation import (
    Difference,
    Estimate,
    EvaluationOptions,
    EvaluationReport,
    Generation,
    ModelEvaluation,
    ModelPair,
    PreferenceResult,
    TopicResult,
)
from fccl.records.manifest import ClientOrigins, Manifest, SourceReport
from fccl.records.run import RunInfo, RunState, Validation
from fccl.specs import ClientColumn, DataSpec, PartitionSpec
from fccl.view.values import DECLINES, EXCLUSIONS, METRICS, ROUNDS, SHARES, RunView


def empty(columns: dict[str, str]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in columns.items()})


def view(clients: int = 3, rounds: int = 6, per_round: int = 0, seed: int = 0, run_id: str = "run") -> RunView:
    """A run of `rounds` rounds, the first half SFT. `per_round` clients are drawn for each; 0 takes all."""
    draw = np.random.default_rng(seed)
    size = draw.integers(20, 400, clients)
    parts, totals = [], []
    for number in range(rounds):
        chosen = np.sort(draw.choice(clients, per_round or clients, replace=False))
        weights = draw.dirichlet(1 + 5 * size[chosen] / size.max())
        phase = "sft" if number < (rounds + 1) // 2 else "va"
        loss = (3.0 if phase == "sft" else 0.7) / (1 + number / rounds) + 0.2 * draw.random(len(chosen))
        parts.append((np.full(len(chosen), number), chosen, weights, size[chosen] / size[chosen].sum(), loss))
        accuracy = np.nan if phase == "sft" else 0.6 + 0.3 * number / rounds
        effective, validation = 1 / float((weights**2).sum()), float(loss.mean())
        known = (
            number,
            phase,
            1000.0 + number,
            2.5,
            len(chosen),
            len(chosen),
            0,
            effective,
            validation,
            accuracy,
            1.5,
            f"{number:064x}",
        )
        totals.append((*known, "fedavg", 0.4 / (1 + number), 32.0, 0.5, 1.25 * validation, validation, *[np.nan] * 5))
    shares = _shares(parts, size, (rounds + 1) // 2) if parts else empty(SHARES)
    of_training = {"time": 1000.0, "seconds": 2.0, "tokens": 900, "tokens_per_second": 450.0, "steps": 8}
    metrics = shares.assign(**of_training, truncated=0, update_norm=2.0)
    return RunView(
        paths=LogPaths(Path("logs")),
        run_id=run_id if rounds else "",
        info=RunInfo(
            run_id=run_id, created=990.0, settings={"seed": "1"}, data_sha256="ab" * 32, versions={"fccl": "0.1.0"}
        ),
        state=RunState(
            run_id=run_id, next_round=rounds, total_rounds=2 * ((rounds + 1) // 2) or 2, adapter_sha256="cd" * 32
        ),
        events=(),
        rounds=pd.DataFrame(totals, columns=list(ROUNDS)).astype(ROUNDS),
        shares=shares,
        exclusions=empty(EXCLUSIONS),
        declines=empty(DECLINES),
        metrics=metrics[list(METRICS)].astype(METRICS),
        statuses=(),
        evaluation=None,
        manifest=None,
        unreadable=0,
        base=Validation(loss=6.5, examples=96),
    )


def _shares(parts: list[tuple[np.ndarray, ...]], size: np.ndarray, sft_rounds: int) -> pd.DataFrame:
    """One table of all rounds' shares; a table a round would take seconds for a long run."""
    number, client, weight, share, loss = (np.concatenate(column) for column in zip(*parts, strict=True))
    columns = {
        "round": number,
        "phase": np.where(number < sft_rounds, "sft", "va"),
        "client": client,
        "weight": weight,
        "sample_share": share,
        "score": size[client] / loss,
        "avg_loss": loss,
        "num_samples": size[client],
        "prior": share,
        "counted": np.nan,
        "standing": np.maximum(0.0, 20 * (share - weight)),
    }
    return pd.DataFrame(columns).astype(SHARES)


def manifest(
    clients: int = 3, topics: tuple[str, ...] = ("addition", "birds"), noisy: tuple[int, ...] = (), seed: int = 0
) -> Manifest:
    """Data of so many clients; topic t of client c has a number of examples of its own."""
    draw = np.random.default_rng(seed)
    spec = DataSpec(
        sft_data="builtin",
        va_data="builtin",
        test_examples=9,
        learn_examples=9,
        validation_examples=9,
        partition=PartitionSpec(num_clients=clients, alpha=0.5, seed=1),
        noisy_clients=noisy,
    )
    counts = {
        phase: tuple(map(tuple, draw.integers(0, 99, (clients, len(topics))).tolist())) for phase in ("sft", "va")
    }
    sources = tuple(
        SourceReport(phase=phase, name="builtin", kind="builtin", sha256="ef" * 32, rows_read=900, examples=900)
        for phase in ("sft", "va")
    )
    splits = {"train": {"sft": 700, "va": 500}, "learn": {"sft": 48, "va": 48}}
    splits |= {"validation": {"sft": 48, "va": 48}, "test": {"sft": 104, "va": 104}}
    return Manifest(
        spec=spec, sources=sources, counts=splits, topics=topics, topics_by_client=counts, noisy_clients=noisy, files={}
    )


def named_clients(anonymize: bool = False) -> Manifest:
    """Data whose column `user` names three clients; one stands for two names, one name is left out."""
    names = () if anonymize else (("ann",), ("bob", "cid"), ("e\x1bve",))
    origins = ClientOrigins(members=(1, 2, 1), names=names, left_out=1, left_out_examples=4)
    plain = manifest()
    partition = plain.spec.partition.model_copy(update={"clients": ClientColumn(column="user", anonymize=anonymize)})
    spec = plain.spec.model_copy(update={"partition": partition})
    return plain.model_copy(update={"spec": spec, "origins": origins})


def evaluation(
    names: tuple[str, ...] = ("base", "SFT", "FedVA"),
    answer: str = "Birds fly.",
    exact: bool = True,
    topic: str = "birds",
) -> EvaluationReport:
    """Models that are the better the later they come; each says `answer` to two instructions."""
    models = tuple(_model(name, at + 1, answer, exact, topic) for at, name in enumerate(names))
    change = Difference(
        measure="response perplexity",
        kind="ratio",
        estimate=Estimate(value=0.5, low=0.4, high=0.6, n=90),
        verdict="better",
    )
    comparisons = tuple(
        ModelPair(first=first, second=second, differences=(change,)) for first, second in pairwise(names)
    )
    options = EvaluationOptions(
        gen_samples=2, gen_tokens=8, gen_temperature=0.8, bootstrap_samples=200, batch_size=4, seed=1
    )
    return EvaluationReport(
        model="micro",
        sft_examples=90,
        va_pairs=80,
        truncated=1,
        options=options,
        models=models,
        comparisons=comparisons,
    )


def _model(name: str, rank: int, answer: str, exact: bool, topic: str) -> ModelEvaluation:
    def estimate(value: float) -> Estimate:
        return Estimate(value=value, low=0.9 * value, high=min(1.1 * value, 1.0) if value < 1 else 1.1 * value, n=90)

    preference = PreferenceResult(accuracy=estimate(1 - 0.4 / rank), right=50, wrong=30, ties=0)
    said = Generation(
        instruction=f"What do birds do, {answer}?", reference=answer, greedy=answer, sampled=f"{answer} {answer}"
    )
    return ModelEvaluation(
        name=name,
        adapter_sha256=None if rank == 1 else f"{rank:064x}",
        perplexity=estimate(900 / rank**4),
        nll=estimate(6 / rank),
        tokens=900,
        preference=preference,
        preference_per_token=preference,
        margin=estimate(5.0 * rank),
        exact=estimate(0.3 * rank) if exact else None,
        topics=(TopicResult(topic=topic, perplexity=estimate(3.0), exact=None),),
        generations=(said, said),
    )
