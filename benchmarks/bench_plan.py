"""How good `fccl plan` is: a probe and the run that it is for, back to back, so often on two models.

    python benchmarks/bench_plan.py [--times 5] [--only quickstart|gpt2] [--out FILE]

The quickstart, and a random model of GPT-2's size with two clients of 20 steps in all. Each plan and each run is a
process of its own. Errors are shares of what the run took: time of rounds, start, end and evaluation; the peak of
memory over its processes. Aims: a median error of time of at most 25 %, of memory of at most 15 %. A machine that does
other things meanwhile spoils the time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fccl.paths import LogPaths  # noqa: E402
from fccl.view.forecast_tables import actual_seconds  # noqa: E402
from fccl.view.taken import actual_of, forecast_of  # noqa: E402

AIMS = {"time": 0.25, "memory": 0.15}
# Of 20 steps: two clients, a round of each phase, 5 batches a client in each.
GPT2 = {
    "num_clients": "2",
    "sft_rounds": "1",
    "va_rounds": "1",
    "max_sft_examples": "110",
    "max_va_examples": "110",
    "batch_size": "8",
    "max_length": "128",
    "size_skew": "1",
    "non_iid_alpha": "inf",
    "lora_targets": "auto",
}


@dataclass(frozen=True)
class Outcome:
    """One plan and its run."""

    case: str
    steps: int
    probe_seconds: float
    seconds: tuple[float, float]  # predicted, actual
    memory: tuple[float, float]

    @property
    def errors(self) -> Mapping[str, float]:
        """As shares of the actual figure."""
        pairs = {"time": self.seconds, "memory": self.memory}
        return {name: (predicted - actual) / actual for name, (predicted, actual) in pairs.items()}

    def line(self) -> str:
        """All of it in words."""
        time, memory = self.errors["time"], self.errors["memory"]
        return (
            f"{self.case:<11} {self.steps:>5} steps, probe {self.probe_seconds:5.1f} s; time {self.seconds[0]:7.1f} s "
            f"planned, {self.seconds[1]:7.1f} s taken ({time:+.0%}); memory {self.memory[0] / 1e6:6.0f} MB planned, "
            f"{self.memory[1] / 1e6:6.0f} MB taken ({memory:+.0%})"
        )


def measured(case: str, settings: Mapping[str, str]) -> Outcome:
    """A plan, then its run, in a folder that goes again."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments = [word for key, value in settings.items() for word in (f"--{key.replace('_', '-')}", value)]
        for command in ("plan", "run"):
            _fccl(folder, [command, *arguments])
        logs = LogPaths(folder / "logs")
        forecast, actual = forecast_of(logs), actual_of(logs)
    took, usage = actual_seconds(actual), actual.usage
    assert forecast.seconds is not None
    assert took is not None
    assert usage is not None
    assert forecast.probe is not None
    held = max([usage.server or 0, *usage.workers])
    peak = max(each.peak or 0 for each in forecast.processes)
    return Outcome(case, forecast.steps, forecast.probe.seconds, (forecast.seconds, took), (peak, held))


def _fccl(folder: Path, arguments: Sequence[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "fccl", *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])


def cases(only: str, models: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    """The two, with their settings."""
    if only in ("", "quickstart"):
        yield "quickstart", {}
    if only in ("", "gpt2"):
        subprocess.run([sys.executable, str(ROOT / "scripts" / "make_random_gpt2.py"), str(models)], check=True)
        yield "gpt2", {**GPT2, "model_name": str(models)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--only", choices=("", "quickstart", "gpt2"), default="")
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as name:
        for case, settings in cases(options.only, Path(name) / "gpt2"):
            found = []
            for _ in range(options.times):
                found.append(measured(case, settings))
                lines.append(found[-1].line())
                print(lines[-1], flush=True)
            for figure, aim in AIMS.items():
                middle = statistics.median(abs(each.errors[figure]) for each in found)
                said = "reached" if middle <= aim else "missed"
                lines.append(f"{case}: median error of {figure} {middle:.0%}, aim {aim:.0%}: {said}")
                print(lines[-1], flush=True)
    if options.out:
        Path(options.out).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
