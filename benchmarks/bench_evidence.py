"""Whether contribution helps a pretrained model on real texts: `fccl compare`, 4 clients on three seeds, 8 on one.

    python benchmarks/bench_evidence.py --sft-data instructions.json --va-data preferences.json [--first] [--jobs 2]

The model is that of `pretrained.py`. Hours: every finished trial is kept under `--out`, and the same command goes on
where it was stopped. `--first` runs what a first table needs: one seed, 4 clients, five methods, clean and shuffled.
What is finished is put into docs/evidence.md by `make evidence-page PARTS="pretrained=FOLDER"`.

Sizes, so that it takes about ten hours of two cores and the first table one: two rounds, 150 instructions and 70 pairs
before they are split, 128 tokens of each, 16 examples for whoever weighs. That is by 76 tokens a second and core, which
a first try with 400 instructions had on a busy machine: 280 of them, 30,525 tokens, took 401 s.
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
    "max_sft_examples": 150,
    "max_va_examples": 70,
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
FEW_CLIENTS, MANY_CLIENTS = 4, 8  # many: the methods and scenarios of the first table


def arguments(model: Path, asked: argparse.Namespace, clients: int) -> list[str]:
    """The command line of one comparison."""
    size = [part for name, value in SIZE.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    few = asked.first or clients > FEW_CLIENTS
    methods, scenarios, seeds = (FIRST_METHODS, FIRST_SCENARIOS, 1) if few else (METHODS, SCENARIOS, SEEDS)
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
    counts = (FEW_CLIENTS,) if asked.first else (FEW_CLIENTS, MANY_CLIENTS)
    statuses = (fccl(arguments(model, asked, clients)) for clients in counts)
    return next((status for status in statuses if status), 0)


if __name__ == "__main__":
    raise SystemExit(main())
