"""A forecast as tables, alone before a run and beside what the run took afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fccl import phases
from fccl.display.tables import Cell, Table
from fccl.display.words import DASH, duration, plural, size
from fccl.records.forecast import Forecast, ProcessForecast, RoundForecast, Usage, total
from fccl.records.run import ClientMetrics, RoundRecord

_PARTS = {"training": "training", "verification": "verification", "validation": "validation", "rest": "the rest"}


def plan_tables(forecast: Forecast) -> tuple[Table, ...]:
    """Time, memory and disk, traffic, other figures, and what will not fit."""
    return (_time(forecast), _space(forecast), _traffic(forecast), _others(forecast), obstacles_table(forecast))


def _time(forecast: Forecast) -> Table:
    rows = [_phase_row(phase, rounds) for phase, rounds in _by_phase(forecast.rounds).items()]
    dashes = (DASH,) * (len(_PARTS) + 1)
    for name, seconds in (("start and end", _ends(forecast)), ("evaluation", forecast.evaluation)):
        rows.append((name, DASH, DASH, *dashes, _clock(seconds)))
    rows.append(("all", str(len(forecast.rounds)), f"{forecast.steps:,}", *dashes, _clock(forecast.seconds)))
    head = ("phase", "rounds", "steps", *_PARTS.values(), "a round", "in all")
    probe = forecast.probe
    note = (
        f"Seconds of a round, by a probe of {plural(probe.steps, 'step')} of {plural(probe.clients, 'client')} in "
        f"{duration(probe.seconds)}. Steps are exact."
        if probe
        else "No step was tried. Steps are exact."
    )
    return Table("Time", head, tuple(rows), note, last_is_sum=True)


def _phase_row(phase: str, rounds: Sequence[RoundForecast]) -> tuple[str, ...]:
    spent = [each.seconds for each in rounds if each.seconds]
    parts = [_seconds(_mean([getattr(each, part) for each in spent])) for part in _PARTS]
    whole = [each.total for each in spent]
    steps = sum(each.steps for each in rounds)
    mean, sums = _seconds(_mean(whole)), _clock(sum(whole) if spent else None)
    return (phases.of(phase).title, str(len(rounds)), f"{steps:,}", *parts, mean, sums)


def _space(forecast: Forecast) -> Table:
    memory = [(f"memory, {_named(each)}", _size(each.peak), "peak") for each in forecast.processes]
    if len(forecast.processes) > 1 or any(each.count > 1 for each in forecast.processes):
        memory.append(("memory, all processes", _size(forecast.memory), "pages that they share count in each"))
    disk = [(f"disk, {each.name}", size(each.size), "exact" if each.exact else "about") for each in forecast.space]
    whole = [("disk, in all", size(forecast.size), "")] if disk else []
    return Table("Memory and disk", ("", "bytes", "how sure"), (*memory, *disk, *whole), words=frozenset({2}))


def _traffic(forecast: Forecast) -> Table:
    rows = []
    for each in forecast.traffic:
        took_part = Counter(client for one in forecast.rounds if one.phase == each.phase for client in one.clients)
        most = max(took_part.values(), default=0)
        what = "the reference" if each.phase == "va" else "the factors"
        note = f"and {size(each.once)} once: {what}" if each.once else ""
        whole = Cell(size(most * (each.down + each.up) + each.once), note=note)
        rows.append((phases.of(each.phase).title, size(each.down), size(each.up), str(most), whole))
    head = ("phase", "down", "up", "rounds of a client", "in all")
    return Table("What a client receives and sends in a round", head, tuple(rows), "Bytes of adapters, exact.")


def _others(forecast: Forecast) -> Table:
    rows = tuple((each.name, each.predicted, each.note) for each in forecast.others)
    return Table("Also", ("", "predicted", ""), rows, words=frozenset({1, 2})).without_empty_columns()


def obstacles_table(forecast: Forecast) -> Table:
    """All that will not fit, each with the setting to change."""
    rows = tuple((each.what, each.hint) for each in forecast.obstacles)
    return Table("What will not fit", ("", "hint"), rows, words=frozenset({1}))


@dataclass(frozen=True)
class Actual:
    """A finished run, as its records have it."""

    rounds: Sequence[RoundRecord]
    metrics: Sequence[ClientMetrics]
    ends: float | None  # seconds before the first round and after the last; None of a run that was resumed
    size: int  # bytes of its folder
    exact_size: int  # of its adapters
    usage: Usage | None


def after_table(forecast: Forecast, actual: Actual) -> Table:
    """Predicted against actual, with the error as a share of the actual figure."""
    rows: list[tuple[str, ...]] = []
    for phase, rounds in _by_phase(forecast.rounds).items():
        done = [record for record in actual.rounds if record.phase == phase]
        for part, name in (*_PARTS.items(), ("total", "in all")):
            predicted = total([getattr(each.seconds, part) if each.seconds else None for each in rounds])
            took = total([_spent(record, part) for record in done])
            rows.append(_compared(f"{phases.of(phase).title}: {name}", predicted, took, _seconds))
    usage = actual.usage
    rows.append(_compared("start and end", _ends(forecast), actual.ends, _seconds))
    rows.append(_compared("evaluation", forecast.evaluation, usage.evaluation if usage else None, _seconds))
    rows.append(_compared("time in all", forecast.seconds, actual_seconds(actual), _seconds))
    steps = sum(each.steps for each in actual.metrics) if actual.metrics else None  # withheld
    rows.append(_compared("steps", forecast.steps, steps, "{:,.0f}".format))
    for each in forecast.processes:
        rows.append(_compared(f"memory, {_named(each)}", each.peak, _peak(each, usage), _whole_size))
    exact = sum(each.size for each in forecast.space if each.exact and each.name != "prepared data")
    rows.append(_compared("disk, adapters and updates", exact, actual.exact_size, _whole_size))
    note = "" if len(forecast.rounds) == len(actual.rounds) else _fewer(forecast, actual)
    return Table("Predicted and actual", ("", "predicted", "actual", "error"), tuple(rows), note)


def actual_seconds(actual: Actual) -> float | None:
    """The seconds of the run, counted as a forecast counts them."""
    rounds = total([record.seconds or None for record in actual.rounds])  # 0: withheld
    return total([actual.ends, rounds, actual.usage.evaluation if actual.usage else None])


def _spent(record: RoundRecord, part: str) -> float | None:
    if part == "total":
        return record.seconds or None
    return None if record.spent is None else float(getattr(record.spent, part))


def _peak(each: ProcessForecast, usage: Usage | None) -> int | None:
    if usage is None:
        return None
    return max(usage.workers, default=None) if each.name == "clients" else usage.server


def _fewer(forecast: Forecast, actual: Actual) -> str:
    return f"{plural(len(forecast.rounds), 'round')} planned, {len(actual.rounds)} done."


def _compared(name: str, predicted: float | None, took: float | None, words: Callable[[float], str]) -> tuple[str, ...]:
    shown = [DASH if each is None else words(each) for each in (predicted, took)]
    error = DASH if predicted is None or not took else f"{100 * (predicted - took) / took:+.0f} %"
    return (name, *shown, error)


def _by_phase(rounds: Sequence[RoundForecast]) -> Mapping[str, list[RoundForecast]]:
    found: dict[str, list[RoundForecast]] = {}
    for each in rounds:
        found.setdefault(each.phase, []).append(each)
    return found


def _named(each: ProcessForecast) -> str:
    return f"{each.name} ({each.count} processes)" if each.count > 1 else each.name


def _ends(forecast: Forecast) -> float | None:
    return total([forecast.start, forecast.finish])


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _seconds(value: float | None) -> str:
    return DASH if value is None else f"{value:.1f} s" if value < 100 else duration(value)


def _clock(value: float | None) -> str:
    return DASH if value is None else duration(value)


def _size(value: int | None) -> str:
    return DASH if value is None else size(value)


def _whole_size(value: float) -> str:
    return size(int(value))
