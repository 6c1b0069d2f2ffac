"""The claim of a primary set in sentences and two small tables: the verdicts of its pairs, and where each method wins.

The sentences are made from the verdicts alone, whatever they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from fccl.display.tables import Cell, Table
from fccl.display.words import DASH
from fccl.records.comparison import FEDAVG, ORACLE, POOLED, Comparison, Outcome, RivalPair, ScenarioInfo, Standing

NO_FEDERATION = ("base", "alone", "centralised", POOLED, "server-only")
VERDICTS: tuple[Standing, ...] = ("better", "not worse", "cannot be told apart", "worse")


def claim_lines(comparison: Comparison) -> list[str]:
    """The verdicts of the pairs, counted, and last the places where ours is worse. Empty without pairs."""
    if not comparison.pairs:
        return []
    titles = {scenario.name: scenario.title for scenario in comparison.scenarios}
    ours = _title(comparison, comparison.pairs[0].method)
    rivals = len({pair.rival for pair in comparison.pairs})
    seeds = ", ".join(map(str, comparison.seeds))
    lines = [
        f"{ours} against {rivals} rivals in {len({pair.scenario for pair in comparison.pairs})} scenarios, seeds "
        f"{seeds}: {_counted(comparison.pairs)}."
    ]
    lines += [f"Against {_title(comparison, FEDAVG)} alone: {_counted(_against(comparison, FEDAVG))}."]
    lines += [f"{words}: {_counted(pairs)}." for words, pairs in _regimes(comparison) if pairs]
    lost = [pair for pair in comparison.pairs if pair.verdict == "worse"]
    said = [f"{titles[pair.scenario]} ({_title(comparison, pair.rival)})" for pair in lost]
    return [*lines, f"Worse in: {'; '.join(said)}." if said else "Worse nowhere."]


def claim_table(comparison: Comparison) -> Table:
    """Each rival, and in how many scenarios ours is better, not worse, not told apart and worse."""
    rivals = dict.fromkeys(pair.rival for pair in comparison.pairs)
    rows = tuple((Cell(_title(comparison, rival)), *_counts(_against(comparison, rival))) for rival in rivals)
    ours = _title(comparison, comparison.pairs[0].method) if comparison.pairs else ""
    note = f"{ours} against each rival: in how many scenarios it is better, not worse and so on."
    return Table("Pairs by rival", ("rival", *VERDICTS), rows, note)


def wins_table(comparison: Comparison) -> Table:
    """Each method, in how many scenarios it is better and worse than FedAvg, and where it ends lowest of all."""
    ranked = [method for method in comparison.methods if _rows(comparison, method.name)]
    rows = tuple((Cell(method.title), *_wins(comparison, method.name)) for method in ranked)
    note = (
        "Against FedAvg by the verdicts of the tables. Lowest: the mean test loss is the lowest of all federated "
        "methods that have all seeds, whether or not that can be told from chance."
    )
    head = ("method", "better than FedAvg", "worse", "of", "lowest in")
    return Table("Where each method wins", head, rows, note, words=frozenset({4}))


def _wins(comparison: Comparison, method: str) -> Iterable[Cell]:
    rows = _rows(comparison, method)
    for verdict in ("better", "worse"):
        yield Cell(DASH if method == FEDAVG else str(sum(row.verdict == verdict for row in rows)))
    yield Cell(str(len(rows)))
    lowest = [_scenario(comparison, row.scenario).title for row in rows if _lowest(comparison, row)]
    yield Cell("; ".join(lowest) or DASH)


def _rows(comparison: Comparison, method: str) -> list[Outcome]:
    """A method's rows, where it is a federation that is not told who is bad."""
    return [row for row in comparison.rows if row.method == method and _plays(row)]


def _plays(row: Outcome) -> bool:
    return row.method not in NO_FEDERATION and not row.method.startswith(ORACLE)


def _lowest(comparison: Comparison, mine: Outcome) -> bool:
    """Whether its mean loss is the lowest in its scenario, of the methods that have all seeds there."""
    rows = [row for row in comparison.rows if row.scenario == mine.scenario and _plays(row)]
    whole = [row for row in rows if row.seeds == max(each.seeds for each in rows)]
    losses = [row.loss.value for row in whole if row.loss]
    return mine in whole and mine.loss is not None and mine.loss.value == min(losses)


def _regimes(comparison: Comparison) -> list[tuple[str, list[RivalPair]]]:
    """The pairs after the comparison's rounds, and those until FedAvg is flat."""
    flat = {scenario.name for scenario in comparison.scenarios if scenario.rounds}
    short = [pair for pair in comparison.pairs if pair.scenario not in flat]
    return [
        (f"After {comparison.rounds} rounds", short),
        ("Until FedAvg is flat", [pair for pair in comparison.pairs if pair.scenario in flat]),
    ]


def _against(comparison: Comparison, rival: str) -> list[RivalPair]:
    return [pair for pair in comparison.pairs if pair.rival == rival]


def _counted(pairs: Sequence[RivalPair]) -> str:
    """The number of pairs of each verdict, in words."""
    found = Counter(pair.verdict for pair in pairs)
    said = ", ".join(f"{verdict} {found[verdict]}" for verdict in VERDICTS)
    return f"of {len(pairs)} pairs {said}"


def _counts(pairs: Sequence[RivalPair]) -> list[Cell]:
    found = Counter(pair.verdict for pair in pairs)
    return [Cell(str(found[verdict])) for verdict in VERDICTS]


def _title(comparison: Comparison, name: str) -> str:
    return next((method.title for method in comparison.methods if method.name == name), name)


def _scenario(comparison: Comparison, name: str) -> ScenarioInfo:
    return next(scenario for scenario in comparison.scenarios if scenario.name == name)
