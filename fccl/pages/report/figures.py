"""The charts of the report, each with a sentence that says what it shows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pandas as pd

from fccl.display import words
from fccl.display.plain_text import one_line
from fccl.display.words import plain
from fccl.pages.report.parts import Figure
from fccl.pages.report.svg import to_svg
from fccl.records.comparison import ORACLE, POOLED, Comparison
from fccl.records.evaluation import Estimate, EvaluationReport, ModelEvaluation
from fccl.records.manifest import Manifest
from fccl.specs import PHASES, Phase
from fccl.view import charts, sentences
from fccl.view.charts import Measure, Picture
from fccl.view.evaluation_tables import percent
from fccl.view.values import RunView

LORA_ERROR = (
    "How far the new adapter's products B·A are from the weighted mean of the clients', as a share of its norm."
)
CEILING_WORDS = {
    POOLED: "all clients' data in one place, before anybody spoilt it",
    ORACLE: "FedAvg without the bad clients",
}
WIDE, NARROW = 540, 326  # pixels: half of a wide page, or a phone's


@dataclass
class Figures:
    """Draws charts and numbers them, so that no two have a name in common."""

    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def draw(self, picture: Picture | None, says: str) -> tuple[Figure, ...]:
        """The figure, or none when there is nothing to draw."""
        if picture is None:
            return ()
        title, notes = _title(picture)
        number = next(self.numbers)
        wide, narrow = (
            to_svg(picture, width, f"figure{number}{size}", f"{title}. {says}")
            for width, size in ((WIDE, "w"), (NARROW, "n"))
        )
        return (Figure(title, " ".join([says, *notes]).strip(), wide, narrow),)


def _title(picture: Picture) -> tuple[str, list[str]]:
    described: dict[str, object] = picture.title.to_dict()
    notes = described.get("subtitle", [])
    return str(described["text"]), [f"{note[0].upper()}{note[1:]}." for note in notes] if isinstance(
        notes, list
    ) else []


def training(figures: Figures, view: RunView) -> tuple[Figure, ...]:
    """Losses and preference accuracy over rounds."""
    found: tuple[Figure, ...] = ()
    for phase in PHASES:
        found += figures.draw(charts.validation_loss(view, phase), _validation_loss(view, phase))
        found += figures.draw(charts.client_losses(view, phase), _losses(view, phase))
    return found + figures.draw(charts.preference_accuracy(view), _accuracy(view))


def influence(figures: Figures, view: RunView) -> tuple[Figure, ...]:
    """Weights, against samples, and the scores behind them."""
    found = (
        *figures.draw(charts.weights_area(view), _heaviest(view)),
        *figures.draw(
            charts.weight_against_samples(view), "Right of its mark: more influence than its samples alone would give."
        ),
        *figures.draw(charts.weights_heat(view), "No cell: the client was not aggregated in that round."),
        *figures.draw(charts.effective_clients(view), _effective(view)),
        *figures.draw(charts.prior_and_weight(view), "The weight before the server verified, and after."),
        *figures.draw(charts.standing(view), sentences.STANDING),
        *figures.draw(charts.verification_gain(view), _verified(view)),
        *figures.draw(charts.verification_seconds(view), _verifying(view)),
        *figures.draw(charts.lora_error(view), LORA_ERROR),
    )
    for phase in PHASES:
        found += figures.draw(charts.scores(view, phase), sentences.scores_of(view.info))
    return found


def gaps(figures: Figures, comparison: Comparison) -> tuple[Figure, ...]:
    """The gap that each method closes, in every scenario that has one."""
    return tuple(
        replace(figure, title=f"{figure.title}: {one_line(scenario.title)}")
        for scenario in comparison.scenarios
        for figure in figures.draw(
            charts.gap_closed(comparison, scenario),
            f"0 % is FedAvg, 100 % {CEILING_WORDS[comparison.ceiling]}; 95 % intervals.",
        )
    )


def topics(figures: Figures, manifest: Manifest) -> tuple[Figure, ...]:
    """The data of each client."""
    return tuple(
        itertools.chain(*(figures.draw(charts.topics(manifest, phase), _samples(manifest, phase)) for phase in PHASES))
    )


def evaluation(figures: Figures, report: EvaluationReport) -> tuple[Figure, ...]:
    """The three measures that people quote."""
    return tuple(
        itertools.chain(
            *(
                figures.draw(charts.evaluation(report, measure), _models(report, measure))
                for measure in ("perplexity", "exact", "preference")
            )
        )
    )


def _validation_loss(view: RunView, phase: Phase) -> str:
    losses = view.rounds[view.rounds["phase"] == phase].set_index("round")["validation_loss"].dropna()
    if losses.empty:
        return ""
    return f"{_from_to(losses, words.loss)}; lower is better."


def _accuracy(view: RunView) -> str:
    values = view.rounds.set_index("round")["preference_accuracy"].dropna()
    return f"{_from_to(values, sentences.percent)} of the validation pairs." if len(values) else ""


def _from_to(values: pd.Series[float], show: Callable[[float], str]) -> str:
    """The first value and the last; the index is the round."""
    rounds = values.index.tolist()
    first, last = (f"{show(float(values.iloc[at]))} after round {rounds[at] + 1}" for at in (0, -1))
    return first if len(values) == 1 else f"From {first} to {last}"


def _losses(view: RunView, phase: Phase) -> str:
    shares = view.shares[view.shares["phase"] == phase]
    if shares.empty:
        return ""
    last = shares[shares["round"] == shares["round"].max()]["avg_loss"]
    return (
        f"As the clients report it: {words.loss(float(last.min()))} to {words.loss(float(last.max()))} in round "
        f"{int(shares['round'].max()) + 1}."
    )


def _heaviest(view: RunView) -> str:
    if view.shares.empty:
        return ""
    means = view.shares.groupby("client")["weight"].mean().nlargest(1)
    return (
        f"Heaviest on average: client {means.index[0]} with {sentences.percent(float(means.iloc[0]))} in the "
        "rounds "
        "it took part in."
    )


def _effective(view: RunView) -> str:
    if view.rounds.empty:
        return ""
    mean, of = view.rounds["effective_clients"].mean(), view.rounds["clients"].mean()
    return f"On average {words.effective(float(mean), None)} of {of:.3g} aggregated; fewer means that few decide."


def _verified(view: RunView) -> str:
    rounds = view.rounds.dropna(subset=["loss_prior", "loss_weights"])
    if rounds.empty:
        return ""
    last = rounds.iloc[-1]
    where = f"on the server's examples in round {int(last['round']) + 1}"
    return (
        f"Loss of the mean {where}: {words.loss(last['loss_prior'])} with the prior, "
        f"{words.loss(last['loss_weights'])} with the weights."
    )


def _verifying(view: RunView) -> str:
    rounds = view.rounds.dropna(subset=["verify_seconds"])
    if rounds.empty:
        return ""
    return (
        f"{sentences.percent(float(rounds['verify_seconds'].sum() / max(rounds['seconds'].sum(), 1e-9)))} of the "
        "time "
        "of these rounds."
    )


def _samples(manifest: Manifest, phase: Phase) -> str:
    counts = manifest.samples_by_client()[phase].values()
    what = "instructions" if phase == "sft" else "pairs"
    return f"{min(counts):,} to {max(counts):,} {what} a client, {sum(counts):,} in all." if counts else ""


def _models(report: EvaluationReport, measure: Measure) -> str:
    def estimate(model: ModelEvaluation) -> Estimate | None:
        return {"perplexity": model.perplexity, "preference": model.preference.accuracy, "exact": model.exact}[measure]

    show = plain if measure == "perplexity" else percent
    return (
        ", ".join(
            f"{one_line(model.name)} {show(found.value)}" for model in report.models if (found := estimate(model))
        )
        + "; 95 % intervals."
    )
