"""The picture of a run for the README: losses by client, validation loss, and what each phase brought.

python scripts/plot_run.py logs docs/quickstart.png
"""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fccl.paths import LogPaths
from fccl.records.evaluation import Estimate, EvaluationReport
from fccl.records.run import RoundRecord, RunEvent
from fccl.storage.reading import read_records, read_value

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = "os^Dvp"


def plot_losses(axes: Axes, records: list[RoundRecord], phase: str, unit: str) -> None:
    """Each client's average loss and the validation loss of the new global adapter, by round."""
    rounds = [record for record in records if record.phase == phase]
    clients = sorted({client for record in rounds for client in record.clients})
    for client in clients:
        points = [
            (r.round + 1, r.contributions[r.clients.index(client)].avg_loss) for r in rounds if client in r.clients
        ]
        axes.plot(
            *zip(*points, strict=True),
            marker=MARKERS[client % 6],
            color=COLOURS[client % 6],
            linewidth=1,
            label=f"client {client}, training",
        )
    validation = [(record.round + 1, record.validation.loss) for record in rounds if record.validation]
    axes.plot(*zip(*validation, strict=True), color="black", linewidth=2, marker="x", label="global, validation")
    axes.set(xlabel="round", ylabel=unit, xticks=[record.round + 1 for record in rounds], ylim=(0, None))
    axes.legend(frameon=False, fontsize=8)


def plot_measure(axes: Axes, report: EvaluationReport) -> None:
    """Exact answers and preference accuracy of every model, with their intervals."""
    measures: dict[str, list[Estimate | None]] = {
        "exact answers": [model.exact for model in report.models],
        "preference accuracy": [model.preference.accuracy for model in report.models],
    }
    for index, (name, estimates) in enumerate(measures.items()):
        for at, one in enumerate(estimates):
            if one is None:
                continue
            x, percent = at + 0.38 * index, 100 * one.value
            spread = [[percent - 100 * one.low], [100 * one.high - percent]]
            axes.bar(x, percent, 0.36, color=COLOURS[index], yerr=spread, capsize=3, label=name if at == 0 else None)
            axes.text(x, 100 * one.high + 2, f"{percent:.0f}", ha="center", fontsize=8)
    axes.set(
        xticks=[at + 0.19 for at in range(len(report.models))],
        xticklabels=[model.name for model in report.models],
        ylabel="% of the test split",
    )
    axes.set_ylim(0, 125)
    axes.legend(frameon=False, fontsize=8, loc="upper left")


def main(logs: LogPaths, out: Path) -> None:
    records = read_records(logs.progress, RoundRecord)
    report = read_value(logs.evaluation_json, EvaluationReport)
    if not records or report is None:
        sys.exit(f"{logs.root} holds no evaluated run")
    start = next(event for event in read_records(logs.progress, RunEvent) if event.event == "started")
    base = f" (base {start.validation.loss:.2f})" if start.validation else ""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    first, second, third = figure.subplots(1, 3)
    plot_losses(first, records, "sft", "nats per response token")
    first.set_title(f"FedIT: instruction tuning{base}", fontsize=10)
    plot_losses(second, records, "va", "DPO loss, nats per pair")
    second.set_title("FedVA: value alignment (reference: 0.69)", fontsize=10)
    plot_measure(third, report)
    third.set_title("Test split, 95 % intervals", fontsize=10)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(LogPaths(Path(sys.argv[1])), Path(sys.argv[2]))
