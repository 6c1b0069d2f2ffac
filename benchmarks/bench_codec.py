"""Codecs (`UPDATE_CODEC`): bytes of whole quickstarts, and the loss that each ends with on the test split.

    python benchmarks/bench_codec.py [--codecs fp32,fp16,int8,int4,topk] [--seeds 42,1,2,3,4]

Every run is the quickstart with one thread. Its SFT loss is the final adapter's in nats per response token, its
preference loss that of DPO against the run's own reference: each on 300 examples of the test split that no run has
seen. Bytes are what the records say: adapters of all clients, up and down, without control files.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import fccl  # noqa: E402
from benchmarks.bench_precision import times  # noqa: E402
from fccl.adapters.adapter import load_adapter  # noqa: E402
from fccl.config import load_settings  # noqa: E402
from fccl.data.examples import PreferencePair, SftExample, read_examples  # noqa: E402
from fccl.evaluation.validation import Validator  # noqa: E402
from fccl.model.loading import load_model  # noqa: E402
from fccl.paths import DataPaths, LogPaths  # noqa: E402

Names = list[str]


class Ended(NamedTuple):
    """A run that is over: bytes up and down, and the losses on the test split."""

    up: int
    down: int
    after_sft: float  # nats per response token, of the adapter after the SFT rounds
    sft: float  # and of the final one
    va: float  # DPO, of the final one


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codecs", default="fp32,fp16,int8,int4,topk")
    parser.add_argument("--shares", default="0.5", help="TOPK_SHARE of topk; several with commas")
    parser.add_argument("--seeds", default="42")
    options = parser.parse_args()
    names = [each for name in options.codecs.split(",") for each in _spelt(name, options.shares.split(","))]
    found: dict[str, list[Ended]] = {name: [] for name in names}
    print("| seed | codec | bytes up | down | loss after SFT | final | preference loss |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for seed in map(int, options.seeds.split(",")):
        for name in names:
            ended = quickstart(seed, name)
            found[name].append(ended)
            figures = f"{ended.after_sft:.4f} | {ended.sft:.4f} | {ended.va:.4f}"
            print(f"| {seed} | {name} | {ended.up:,} | {ended.down:,} | {figures} |", flush=True)
    summary(found)
    return 0


def _spelt(name: str, shares: Names) -> Names:
    return [f"topk {share}" for share in shares] if name == "topk" else [name]


def quickstart(seed: int, name: str, **settings: Any) -> Ended:
    """One run, then its losses."""
    codec, *share = name.split()
    with tempfile.TemporaryDirectory() as folder:
        data, logs = Path(folder) / "data", Path(folder) / "logs"
        own = {"topk_share": float(share[0])} if share else {}
        usual: dict[str, Any] = {
            "seed": seed,
            "threads": 1,
            "client_processes": 1,
            "engine": "gpt2",
            "keep_updates_mb": 0,
        }
        folders = {"data_dir": data, "log_dir": logs, "update_codec": codec}
        run = fccl.FederatedRun(**{**usual, **folders, **own, **settings})
        records = [result.record for result in run]
        before = [None, *([update.client_id for update in record.arrived] for record in records)]
        sent = [record.sent for record in records if record.sent]
        up = sum(each.up for each in sent)
        down = sum(each.down_to(record.selected, had) for each, record, had in zip(sent, records, before, strict=False))
        return Ended(up, down, *losses(data, LogPaths(logs)))


def losses(data: Path, logs: LogPaths) -> tuple[float, float, float]:
    """On the test split: SFT's loss after SFT and at the end, and DPO's at the end."""
    settings, splits = load_settings({"engine": "gpt2"}), DataPaths(data)
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
    """Each codec beside the first, over the seeds."""
    (_, first), *_ = found.items()
    print("\n| codec | fewer bytes up | down | loss after SFT, times | final, times | preference loss, times |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, runs in found.items():
        pairs = list(zip(runs, first, strict=True))
        fewer = (
            sum(getattr(one, way) for one in first) / sum(getattr(one, way) for one in runs) for way in ("up", "down")
        )
        ratios = [
            times([getattr(one, what) / getattr(other, what) for one, other in pairs]) for what in Ended._fields[2:]
        ]
        print(f"| {name} | {' | '.join(f'{each:.1f}' for each in fewer)} | {' | '.join(ratios)} |")


if __name__ == "__main__":
    raise SystemExit(main())
