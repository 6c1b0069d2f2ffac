"""The run itself: how it stands, its figures, its rounds, its clients, what went wrong."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import pandas as pd

from fccl import phases
from fccl.display import words
from fccl.display.plain_text import one_line
from fccl.display.tables import Cell, Table
from fccl.display.words import plain
from fccl.pages.report.evaluation import verdict
from fccl.pages.report.parts import DASH, MOST_ROWS, Tile, thinned, thinned_note
from fccl.records.evaluation import EvaluationReport
from fccl.registry import is_own
from fccl.specs import PHASES
from fccl.view import sentences
from fccl.view.evaluation_tables import percent
from fccl.view.late import late_table
from fccl.view.members import members_table
from fccl.view.origins import declared_note
from fccl.view.privacy import privacy_line, secure_line
from fccl.view.status import planned_rounds
from fccl.view.values import ExchangeView, RunStatus, RunView

INFLUENCE = ("samples", "weight", "gain, points")
CLIENT_HEAD = (
    *("client", "state", "instructions", "pairs", "rounds", "excluded"),
    *INFLUENCE,
    *("loss, SFT", "loss, VA", "tokens/s"),
)
MOST_CLIENTS = 12  # columns of the table of weights
MOST_LINES = 200  # of exclusions, of clients
TONES = {"finished": "good", "failed": "bad", "interrupted": "bad", "silent": "bad"}


def facts(view: RunView) -> tuple[tuple[str, str], ...]:
    """The run's identity, in pairs of a name and a value."""
    if view.info is None:
        return ()
    said = view.info.settings.get
    per_round, clients = said("clients_per_round", "0"), said("num_clients", "?")
    (sft, va), sources = planned_rounds(view) or ("?", "?"), (said("sft_data", ""), said("va_data", ""))
    found = {
        "Model": said("model_name", ""),
        "Base precision": said("base_precision", ""),
        "Prompts": said("prompt_format", ""),
        "Clients": clients if per_round in ("0", clients) else f"{clients}, {per_round} in a round",
        "Rounds": f"{sft} of FedIT (SFT), {va} of FedVA (DPO){stopped_early(view)}",
        "Result": best_round(view),
        "Weights": weighing(view),
        "Updates": secure_line(view.secure),
        "Privacy": privacy_line(view.privacy[-1][2]) if view.privacy else "",
        "Data": "; ".join(dict.fromkeys(source for source in sources if source)),
        "Seed": said("seed", ""),
        "Started": words.moment(view.info.created),
    }
    return tuple((name, one_line(value)) for name, value in found.items() if value)


def stopped_early(view: RunView) -> str:
    """A word on the phases that PATIENCE or the privacy budget has ended, if any."""
    ended = [phases.of(phase).name for phase in PHASES if view.state and phase in view.state.early]
    return f"; {' and '.join(ended)} ended by {_ender(view)}" if ended else ""


def _ender(view: RunView) -> str:
    """The setting that can have ended a phase; both, where both are set."""
    settings = view.info.settings if view.info else {}
    private, patient = settings.get("dp_where", "none") != "none", settings.get("patience", "0") != "0"
    if not private:
        return "PATIENCE"
    return "PATIENCE or the privacy budget" if patient else "the privacy budget"


def best_round(view: RunView) -> str:
    """The round whose adapter is the result of the run, where that may be another than the last."""
    watch = view.state.watch if view.state and view.state.finished else None
    if watch is None or watch.best_round is None:
        return ""
    return f"the adapter of round {watch.best_round + 1}, of the lowest validation loss"


def weighing(view: RunView) -> str:
    """The rule of the weights, in short."""
    given = view.info.settings if view.info else {}
    mode = given.get("contribution_mode", "")
    if mode != "cognitive":
        return {"uniform": "equal for all", "fedavg": "by samples (FedAvg)"}.get(mode, mode)
    source = given.get("contribution_source", "?")
    if source in sentences.NO_SOFTMAX or is_own(source):
        return source
    return f"FCCL, {source}, T = {given.get(sentences.temperature_of(source), '?')}"


def notices(view: RunView, found: RunStatus) -> tuple[str, ...]:
    """The lines that a reader must know before the figures."""
    lines = []
    if found.standing in ("failed", "interrupted", "silent"):
        lines.append(
            "What is complete is shown. “fccl run --resume”, or the orchestrator started again, goes on from there."
        )
    if found.standing == "running":
        lines.append("The run was still going on when this report was made.")
    if len(view.exclusions):
        rounds = view.exclusions["round"].nunique()
        lines.append(
            f"{words.plural(len(view.exclusions), 'answer')} of clients were excluded, in "
            f"{words.plural(rounds, 'round')}: see “Failures and events”."
        )
    if view.unreadable:
        lines.append(f"{words.plural(view.unreadable, 'line')} of the logs could not be read and are left out.")
    return tuple(lines)


def tiles(view: RunView, found: RunStatus) -> tuple[Tile, ...]:
    """Five or six figures: the evaluation's where there is one, else how far the run is."""
    first = (
        _evaluated(view.evaluation)
        if view.evaluation
        else (Tile("Rounds complete", f"{found.round} of {found.total_rounds}"), *_validation(view))
    )
    seconds = float(view.rounds["seconds"].sum())
    effective = Tile(
        "Effective clients", words.effective(found.effective_clients, found.aggregated), "1 / Σw² in the last round"
    )
    time = Tile(
        "Time in rounds", words.duration(seconds) if len(view.rounds) else DASH, words.plural(len(view.rounds), "round")
    )
    return (*first, effective, time)


def _evaluated(report: EvaluationReport) -> tuple[Tile, ...]:
    last, earlier = report.models[-1], report.models[:-1]

    def before(show: list[str]) -> str:
        return ", ".join(f"{one_line(model.name)} {text}" for model, text in zip(earlier, show, strict=True) if text)

    measures = [("response perplexity", [plain(model.perplexity.value) for model in report.models])]
    if last.exact:
        measures.append(
            ("exact answers", [percent(model.exact.value) if model.exact else "" for model in report.models])
        )
    if last.preference.accuracy:
        measures.append(
            (
                "preference accuracy",
                [percent(m.preference.accuracy.value) if m.preference.accuracy else "" for m in report.models],
            )
        )
    return tuple(
        Tile(f"{name.capitalize()}, {one_line(last.name)}", figures[-1], before(figures[:-1]), verdict(report, name))
        for name, figures in measures
    )


def _validation(view: RunView) -> tuple[Tile, ...]:
    losses = view.rounds[view.rounds["phase"] == "sft"]["validation_loss"].dropna()
    accuracy = view.rounds["preference_accuracy"].dropna()
    base = f"base model {words.loss(view.base.loss)}" if view.base else ""
    return (
        Tile("Validation loss, SFT", words.loss(float(losses.iloc[-1])) if len(losses) else DASH, base),
        Tile(
            "Preference accuracy",
            sentences.percent(float(accuracy.iloc[-1])) if len(accuracy) else DASH,
            "on validation pairs",
        ),
    )


def rounds_table(view: RunView) -> Table:
    """One row a round."""
    rounds = view.rounds
    shown = thinned(range(len(rounds)))
    rows = tuple(_round(row) for row in rounds.iloc[shown].to_dict("records"))
    head = (
        "round",
        "phase",
        "clients",
        "effective",
        "validation loss",
        "preference accuracy",
        "update norm",
        "sent up",
        "down",
        "time",
        "adapter",
    )
    note = "Loss in nats per response token (SFT) and per pair (VA). Sent: adapters of all clients, as UPDATE_CODEC "
    note += "writes them. Adapter: the first digits of its SHA-256. "
    note += thinned_note(len(shown), len(rounds), "rounds", "progress.jsonl")
    return Table("Rounds", head, rows, note.strip(), words=frozenset({1}))


def _round(row: Mapping[Hashable, Any]) -> tuple[str, ...]:
    return (
        f"{row['round'] + 1}",
        phases.title(row["phase"]),
        f"{row['clients']} of {row['selected']}",
        f"{row['effective_clients']:.2f}",
        words.loss(row["validation_loss"]),
        sentences.percent(row["preference_accuracy"]),
        f"{row['update_norm']:.3f}",
        *(DASH if math.isnan(row[name]) else words.size(int(row[name])) for name in ("bytes_up", "bytes_down")),
        words.duration(row["seconds"]),
        one_line(row["adapter_sha256"])[:12],
    )


def weights_table(view: RunView) -> Table | None:
    """The weight of every client in every round; of many clients the heaviest."""
    if view.shares.empty:
        return None
    totals = view.shares.groupby("client")["weight"].sum()
    chosen = sorted(int(client) for client in totals.nlargest(MOST_CLIENTS).index)
    rounds = sorted(int(number) for number in view.shares["round"].unique())
    shown = thinned(rounds)
    kept = view.shares[view.shares["client"].isin(chosen) & view.shares["round"].isin(shown)]
    weights = {(number, client): weight for number, client, weight in _columns(kept, "round", "client", "weight")}
    rows = tuple((f"{number + 1}", *(_weight(weights.get((number, client))) for client in chosen)) for number in shown)
    notes = [f"The {len(chosen)} heaviest of {len(totals)} clients." if len(totals) > len(chosen) else ""]
    notes += [
        "A dash: not aggregated in that round.",
        thinned_note(len(shown), len(rounds), "rounds", "progress.jsonl"),
    ]
    head = ("round", *(f"client {client}" for client in chosen))
    return Table("FCCL weights by round, in %", head, rows, " ".join(note for note in notes if note))


def _columns(frame: pd.DataFrame, *names: str) -> Iterator[tuple[Any, ...]]:
    """The rows as plain Python values."""
    return zip(*(frame[name].tolist() for name in names), strict=True)


def _weight(value: float | None) -> str:
    return DASH if value is None else f"{100 * value:.1f}"


def clients_table(view: RunView, found: RunStatus) -> Table | None:
    """One row a client: what it holds, how often it counted, how much, and how it ended."""
    held = view.manifest.samples_by_client() if view.manifest else {}
    standing = {row.client: sentences.client_state(row) for row in found.clients}
    clients = sorted({*standing, *view.shares["client"].tolist(), *held.get("sft", {})})
    if not clients:
        return None
    means = view.shares.groupby("client")[["weight", "sample_share"]].mean()
    shares = {
        client: (weight, share)
        for client, weight, share in _columns(means.reset_index(), "client", "weight", "sample_share")
    }
    counted, left_out = (Counter(table["client"].tolist()) for table in (view.shares, view.exclusions))
    losses = {
        (phase, client): loss for phase, client, loss in _columns(view.shares, "phase", "client", "avg_loss")
    }  # the last one stays
    speeds = view.metrics.groupby("client")["tokens_per_second"].mean().to_dict()
    noisy = view.manifest.noisy_clients if view.manifest else ()
    rows: list[tuple[Cell | str, ...]] = []
    for client in clients[:MOST_LINES]:
        samples = (f"{held[phase][client]:,}" if client in held.get(phase, {}) else DASH for phase in PHASES)
        last = (words.loss(losses.get((phase, client))) for phase in PHASES)
        name = Cell(str(client), note="spoilt on purpose" if client in noisy else "")
        turns = (str(counted[client]), str(left_out[client]))
        speed = f"{speeds[client]:,.0f}" if client in speeds else DASH
        rows.append((name, standing.get(client, DASH), *samples, *turns, *_influence(shares.get(client)), *last, speed))
    note = (
        "Samples and weight: mean share over the rounds in which the client counted. Gain: weight minus samples. "
        "Loss: the last that it reported. "
    )
    note += f"{said} " if (said := sentences.declines(view.declines)) else ""
    note += thinned_note(len(rows), len(clients), "clients", "client_metrics.jsonl")
    note = f"{note.strip()} {declared_note(view.manifest, view.info)}"
    return Table("Who took part, and with what weight", CLIENT_HEAD, tuple(rows), note.strip(), words=frozenset({1}))


def _influence(shares: tuple[float, float] | None) -> tuple[str, str, str]:
    """Share of samples, weight, and what the client gained by it."""
    if shares is None:
        return DASH, DASH, DASH
    weight, share = shares
    points = 100 * (weight - share)
    change = "0.0" if abs(points) < 0.05 else f"{'▲' if points > 0 else '▼'} {sentences.signed(points, 1)}"
    return sentences.percent(share), sentences.percent(weight), change


def failures_tables(view: RunView, exchange: ExchangeView | None) -> tuple[Table, ...]:
    """The excluded clients, and why; who joined and left; late updates; which files were refused."""
    found: list[Table] = []
    if len(view.exclusions):
        shown = view.exclusions.tail(MOST_LINES)
        rows = tuple(
            (f"{number + 1}", str(client), one_line(reason))
            for number, client, reason in _columns(shown, "round", "client", "reason")
        )
        note = thinned_note(len(rows), len(view.exclusions), "exclusions, the newest,", "progress.jsonl")
        found.append(Table("Clients excluded", ("round", "client", "reason"), rows, note, words=frozenset({2})))
    found += [table for table in (members_table(view), late_table(view)) if table is not None]
    mine = [each for each in exchange.rejected if each.run_id == view.run_id] if exchange else []
    if mine:
        files = tuple(
            (
                words.moment(each.time),
                f"{each.round + 1}",
                DASH if each.client_id is None else str(each.client_id),
                ", ".join(map(one_line, each.files)),
                one_line(each.reason),
            )
            for each in mine[:MOST_ROWS]
        )
        note = thinned_note(len(files), len(mine), "refusals", "the exchange directory's rejected/")
        found.append(
            Table("Files refused", ("time", "round", "client", "files", "reason"), files, note, words=frozenset({3, 4}))
        )
    return tuple(found)


def events_table(view: RunView) -> Table | None:
    """The events of the run as a whole."""
    rows = tuple(
        (event.event, words.moment(event.time), f"{event.round}", one_line(event.message) or DASH)
        for event in view.events[-MOST_ROWS:]
    )
    return (
        Table("Events", ("event", "time", "rounds complete", "message"), rows, words=frozenset({3})) if rows else None
    )
