"""Whether contribution helps a pretrained model on real texts: `fccl compare` among 4 and 8 clients, three seeds.

    python benchmarks/bench_evidence.py --sft-data instructions.json --va-data preferences.json [--first] [--jobs 2]

The model is that of `pretrained.py`. Hours: every finished trial is kept under `--out`, and the same command goes on
where it was stopped. `--first` runs what a first table needs: one seed, 4 clients, five methods, clean and shuffled.
What is finished is put into docs/evidence.md by `make evidence-page PARTS="pretrained=FOLDER"`.

Sizes, so that three seeds take at most ten hours of two cores: two rounds, 400 instructions and 200 pairs before they
are split, 128 tokens of each, 16 examples for whoever weighs. By estimate, from the tokens a second of a model of that
size, it is twelve core hours, and the first table one; neither was timed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.pretrained import default_cache, pretrained  # noqa: E402
from fccl.apps.main import main as fccl  # noqa: E402

SIZE = {
    "fed_rounds": 2,
    "max_sft_examples": 400,
    "max_va_examples": 200,
    "max_length": 128,
    "batch_size": 4,
    "sft_lr": 1e-3,
    "verify_examples": 16,
}
FIRST_METHODS = ("pooled", "fedavg", "fedavg-server", "verified", "tempered")
METHODS = (*FIRST_METHODS, "tempered-server", "oracle")
FIRST_SCENARIOS = ("clean-non-iid", "shuffled")
SCENARIOS = (*FIRST_SCENARIOS, "sign-flip", "flipped", "server-two-topics")
SEEDS = 3


def arguments(model: Path, asked: argparse.Namespace, clients: int) -> list[str]:
    """The command line of one comparison."""
    size = [part for name, value in SIZE.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    methods, scenarios, seeds = (FIRST_METHODS, FIRST_SCENARIOS, 1) if asked.first else (METHODS, SCENARIOS, SEEDS)
    chosen = ["--methods", ",".join(methods), "--scenarios", ",".join(scenarios), "--seeds", str(seeds)]
    data = ["--sft-data", asked.sft_data, "--va-data", asked.va_data, "--num-clients", str(clients)]
    # one thread in any case, so that the trials of one process are those of two
    out = ["--out", str(asked.out / f"{clients}-clients"), "--jobs", str(asked.jobs), "--threads", "1"]
    return ["compare", "--model-name", str(model), *data, *size, *chosen, *out]


def main() -> int:
    """Run the comparisons. Returns the status of the first that does not end well, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sft-data", required=True, help="instructions, as fccl prepare reads them")
    parser.add_argument("--va-data", required=True, help="preference pairs")
    parser.add_argument("--first", action="store_true", help="one seed, 4 clients, five methods, two scenarios")
    parser.add_argument("--jobs", type=int, default=2, help="processes, each with one thread")
    parser.add_argument("--out", type=Path, default=Path("logs") / "pretrained", help="where to")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where the model is kept")
    asked = parser.parse_args()
    model = pretrained(asked.cache, lambda line: print(line, file=sys.stderr, flush=True))
    statuses = (fccl(arguments(model, asked, clients)) for clients in ((4,) if asked.first else (4, 8)))
    return next((status for status in statuses if status), 0)


if __name__ == "__main__":
    raise SystemExit(main())
