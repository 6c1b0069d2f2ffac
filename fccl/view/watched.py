"""The rounds that PATIENCE and RESULT_ROUND=best watch, in words."""

from __future__ import annotations

from dataclasses import dataclass

from fccl import phases
from fccl.display.plain_text import one_line
from fccl.display.words import DASH, plural
from fccl.view.values import RoundWatched, RunView


@dataclass(frozen=True)
class WatchedWords:
    """The newest phase that was watched, and all that have ended."""

    phase: str
    result: str  # the round whose adapter is the phase's result so far
    waited: str  # how near PATIENCE is to the end of the phase; or that it has ended
    ends: tuple[str, ...]  # a sentence a phase


def watched_words(view: RunView) -> WatchedWords | None:
    """The words of a run under PATIENCE or RESULT_ROUND=best; None for any other."""
    settings = view.info.settings if view.info else {}
    patience, best = settings.get("patience", "0"), settings.get("result_round", "last") == "best"
    if patience == "0" and not best:
        return None
    ends = tuple(_end(each) for each in view.watched if each.end)
    if not view.watched:
        return WatchedWords("", DASH, "", ends)
    last = view.watched[-1]
    return WatchedWords(phases.of(last.phase).name, f"round {_result(last) + 1}", _waited(last, patience), ends)


def _result(last: RoundWatched) -> int:
    """Counted from 0."""
    if last.end:
        return last.end.result_round
    best = last.watched.best_round if last.watched else None
    return last.round if best is None else best


def _waited(last: RoundWatched, patience: str) -> str:
    if last.end:
        return f"ended early, after {plural(last.end.rounds, 'round')}" if last.end.early else "all rounds done"
    if patience == "0" or last.watched is None:
        return ""
    return f"{last.watched.waited} of {one_line(patience)} rounds without a gain"


def _end(each: RoundWatched) -> str:
    if each.end is None:
        return ""
    how = "ended early" if each.end.early else "ended as planned"
    name, rounds = phases.of(each.phase).name, plural(each.end.rounds, "round")
    return f"{name} {how} after {rounds}; its result is round {each.end.result_round + 1}."
