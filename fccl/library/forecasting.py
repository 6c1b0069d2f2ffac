"""From a probe to a forecast: the seconds, the memory and the disk of the whole run.

Seconds of training go by tokens: a process computes as many in a second as it did in the probe. The first round of a
client costs more by what it makes once, such as the reference's log-probabilities. All else of a round is the server's,
and costs what it cost in the probe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from fccl.federation.workload import PlannedRound, Work
from fccl.library.probe import Probed
from fccl.processes.sharing import share_out
from fccl.records.forecast import ProcessForecast, RoundForecast
from fccl.records.run import RoundRecord, RoundSeconds
from fccl.specs import Phase


@dataclass(frozen=True)
class Layout:
    """The way in which clients share the machine."""

    processes: int
    together: bool  # in one batch on one device
    first_scales: Mapping[Phase, bool]  # whether what a first round costs beside grows with the examples

    def load(self, work: Mapping[int, Work]) -> float:
        """The tokens of the process that has most of them. Clients are shared out by their examples, as in a run."""
        if self.together or not work:
            return float(sum(each.tokens for each in work.values()))
        queues = share_out({client: float(each.examples) for client, each in work.items()}, {}, self.processes)
        return float(max(sum(work[client].tokens for client in queue) for queue in queues.values()))


@dataclass(frozen=True)
class PhaseRates:
    """The seconds of one phase, as a probe has measured them."""

    a_token: float  # of the process that has most
    first: float  # of a client's first round, beside: a token, or all together
    first_scales: bool
    usual: RoundSeconds  # of a round after the first; its training is not used
    opening: RoundSeconds  # of the first round of the phase

    @classmethod
    def of(cls, planned: Sequence[PlannedRound], records: Sequence[RoundRecord], layout: Layout) -> PhaseRates:
        """Those of the rounds of one phase, of which the first is apart from the others."""
        loads = [layout.load(each.work) for each in planned]
        spent = [record.spent or RoundSeconds(rest=record.seconds) for record in records]
        later = range(1, len(records)) if len(records) > 1 else range(1)
        a_token = median(spent[number].training / max(1.0, loads[number]) for number in later)
        beside = max(0.0, spent[0].training - a_token * loads[0])
        phase = planned[0].phase
        scales = layout.first_scales[phase]
        usual = _medians([spent[number] for number in later])
        return cls(a_token, beside / (max(1.0, loads[0]) if scales else 1.0), scales, usual, spent[0])

    def seconds(self, load: float, fresh: float, opens: bool, more: float) -> RoundSeconds:
        """Of a round with these loads in tokens, all and of clients in their first round; the server has `more` times
        the clients that it had.
        """
        beside = self.first * (fresh if self.first_scales else fresh > 0)
        server = self.opening if opens else self.usual
        return RoundSeconds(
            training=self.a_token * load + beside,
            verification=more * server.verification,
            validation=server.validation,
            rest=more * server.rest,
        )


def round_forecasts(planned: Sequence[PlannedRound], probe: Probed | None, layout: Layout) -> list[RoundForecast]:
    """All rounds, with their seconds where a probe has measured them."""
    rates = {phase: _rates(probe, phase, layout) for phase in {each.phase for each in planned}} if probe else {}
    seen: set[tuple[Phase, int]] = set()
    found = []
    for each in planned:
        fresh = {client: work for client, work in each.work.items() if (each.phase, client) not in seen}
        opens = not any(phase == each.phase for phase, _ in seen)
        seen |= {(each.phase, client) for client in each.work}
        found.append(
            RoundForecast(
                round=each.number,
                phase=each.phase,
                clients=tuple(each.work),
                steps=sum(work.steps for work in each.work.values()),
                tokens=sum(work.tokens for work in each.work.values()),
                seconds=rates[each.phase].seconds(
                    layout.load(each.work), layout.load(fresh), opens, len(each.work) / probe.settings.num_clients
                )
                if probe
                else None,
            )
        )
    return found


def processes_forecast(
    planned: Sequence[PlannedRound], probe: Probed, processes: int, a_token: int, kept: int
) -> tuple[ProcessForecast, ...]:
    """The peaks of memory: those of the probe, and what the longest step of the run takes beyond the probe's longest.

    `a_token` is in bytes; `kept` bytes of activations are kept in each process that trains.
    """
    more = max(0, _longest(planned) - _longest(probe.planned)) * a_token + kept
    server, workers = probe.usage.server, probe.usage.workers
    trains = not workers
    own = None if server is None else server + (more if trains else 0)
    name = "server and clients" if trains else "server"
    beside = ProcessForecast(name="clients", count=processes, peak=max(workers, default=0) + more)
    return (ProcessForecast(name=name, count=1, peak=own), *(() if trains else (beside,)))


def evaluation_seconds(probe: Probed, examples: int, generations: int) -> float:
    """Of the whole test split with all generations, by a probe of some of both; 0 where the run is not evaluated."""
    if (found := probe.evaluated) is None:
        return 0.0
    an_example = max(0.0, found.seconds - found.first) / max(1, found.examples - found.few)
    shown = found.generating * generations / max(1, found.generations)
    return found.first + an_example * max(0, examples - found.few) + shown


def _rates(probe: Probed, phase: Phase, layout: Layout) -> PhaseRates:
    places = [place for place, each in enumerate(probe.planned) if each.phase == phase]
    return PhaseRates.of([probe.planned[place] for place in places], [probe.records[place] for place in places], layout)


def _medians(spent: Sequence[RoundSeconds]) -> RoundSeconds:
    return RoundSeconds(**{name: median(getattr(each, name) for each in spent) for name in RoundSeconds.model_fields})


def _longest(planned: Sequence[PlannedRound]) -> int:
    return max((work.longest for each in planned for work in each.work.values()), default=0)
