"""Fewer bytes: what whole quickstarts send under codecs and Fed-SB, and the loss that each ends with on the test split.

    python benchmarks/bench_codec.py [--forms fp32,int4,int3,"fed_sb 32 int8"] [--seeds 42,1,2,3,4] [--set NAME=VALUE]

A form is a codec (`UPDATE_CODEC`), `topk SHARE`, or `fed_sb RANK [CODEC]`. Every run is the quickstart with one thread;
`--set` changes any setting of all runs, such as `model_name`, `sft_data` and `va_data`. The SFT loss is the final
adapter's in nats per response token, the preference loss that of DPO against the run's own reference: each on the test
split, which no run has seen. Bytes are what the records say, of one client in a round, without control files: the
first round's adapter, which is drawn from the seed or brings the factors, stands by itself. `--keep FILE` goes on where
an earlier call has stopped.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import fccl  # noqa: E402
from benchmarks.bench_precision import times  # noqa: E402
from benchmarks.kept import Kept  # noqa: E402
from fccl.adapters.adapter import load_adapter  # noqa: E402
from fccl.config import Settings  # noqa: E402
from fccl.data.examples import PreferencePair, SftExample, read_examples  # noqa: E402
from fccl.evaluation.validation import Validator  # noqa: E402
from fccl.model.loading import load_model  # noqa: E402
from fccl.paths import DataPaths, LogPaths  # noqa: E402

FORMS = "fp32,fp16,int8,int4,int3,topk 0.5,fed_sb 32,fed_sb 32 int8"
LOSSES = ("after_sft", "sft", "va")
FED_SB = {"lora_aggregation": "fed_sb", "lora_alpha": 64}  # the usual twice the rank


class Ended(NamedTuple):
    """A run that is over: the bytes of one client in a round, and the losses on the test split."""

    up: float
    down: float  # in every round but the first
    first: float  # down, in the first round
    after_sft: float  # nats per response token, of the adapter after the SFT rounds
    sft: float  # and of the final one
    va: float  # DPO, of the final one


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forms", default=FORMS)
    parser.add_argument("--seeds", default="42")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    settings = dict(pair.split("=", 1) for pair in options.set)
    kept = Kept(options.keep)
    found: dict[str, list[Ended]] = {name: [] for name in options.forms.split(",")}
    print("| seed | form | up | down | first down | loss after SFT | final | preference loss |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for seed in map(int, options.seeds.split(",")):
        for name, runs in found.items():
            key = f"{seed} {name} {sorted(settings.items())}"
            ended = Ended(*kept.figures(key, partial(quickstart, seed, name, settings)))
            runs.append(ended)
            figures = " | ".join(f"{each:.4f}" for each in ended[3:])
            print(f"| {seed} | {name} | {_bytes(ended)} | {figures} |", flush=True)
    summary(found)
    return 0


def _bytes(ended: Ended) -> str:
    return " | ".join(f"{each:,.0f}" for each in ended[:3])


def settings_of(name: str) -> dict[str, Any]:
    """The settings that a form stands for.

    >>> settings_of("topk 0.3"), settings_of("fed_sb 16 int3")["update_codec"]
    ({'update_codec': 'topk', 'topk_share': 0.3}, 'int3')
    """
    kind, *rest = name.split()
    if kind == "fed_sb":
        return {**FED_SB, "lora_r": int(rest[0]), "update_codec": (*rest[1:], "fp32")[0]}
    return {"update_codec": kind, **({"topk_share": float(rest[0])} if rest else {})}


def quickstart(seed: int, name: str, settings: dict[str, Any]) -> Ended:
    """One run, then its losses."""
    with tempfile.TemporaryDirectory() as folder:
        data, logs = Path(folder) / "data", Path(folder) / "logs"
        usual: dict[str, Any] = {"seed": seed, "threads": 1, "client_processes": 1, "keep_updates_mb": 0}
        run = fccl.FederatedRun(**{**usual, "data_dir": data, "log_dir": logs, **settings_of(name), **settings})
        records = [result.record for result in run]
        sent = [record.sent for record in records if record.sent]
        up = sum(each.up for each in sent) / sum(len(record.arrived) for record in records)
        down = statistics.mean(each.down for each in sent[1:])
        return Ended(up, down, sent[0].down, *losses(run.settings, data, LogPaths(logs)))


def losses(settings: Settings, data: Path, logs: LogPaths) -> tuple[float, float, float]:
    """On the test split: SFT's loss after SFT and at the end, and DPO's at the end."""
    splits = DataPaths(data)
    sft = read_examples(splits.server_split("test", "sft"), SftExample)
    pairs = read_examples(splits.server_split("test", "va"), PreferencePair)
    judge = Validator(
        load_model(settings.model_spec().model_copy(update={"base_precision": "fp32"})),
        sft,
        pairs,
        preference=settings.train_spec("va").preference,
        batch_size=settings.eval_batch_size,
    )
    first, last = load_adapter(logs.global_sft), load_adapter(logs.global_final)
    return judge("sft", first, None).loss, judge("sft", last, None).loss, judge("va", last, first).loss


def summary(found: dict[str, list[Ended]]) -> None:
    """Each form beside the first, over the seeds: bytes, and the ratio of losses with Student's 95 % interval."""
    (_, first), *_ = found.items()
    print("\n| form | up | down | first down | fewer up | down | loss after SFT, times | final | preference loss |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for name, runs in found.items():
        fewer = (_mean(first, way) / _mean(runs, way) for way in ("up", "down"))
        ratios = [
            times([getattr(one, what) / getattr(other, what) for one, other in zip(runs, first, strict=True)])
            for what in LOSSES
        ]
        print(f"| {name} | {_bytes(runs[0])} | {' | '.join(f'{each:.1f}' for each in fewer)} | {' | '.join(ratios)} |")


def _mean(runs: Sequence[Ended], what: str) -> float:
    return statistics.mean(float(getattr(run, what)) for run in runs)


if __name__ == "__main__":
    raise SystemExit(main())
