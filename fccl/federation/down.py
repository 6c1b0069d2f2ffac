"""The way down: the next global adapter as its change of this one, where a codec asks for it.

The server rounds the adapter itself, not a copy of it for the clients. So everybody has the adapter that it validates
and commits, and a run has the same bytes whatever carries it and whoever joins late. The part that rounding left out
(`lag`) is added to the next round's adapter before that is rounded: nothing is lost, only late.
"""

from __future__ import annotations

from dataclasses import dataclass

from fccl.adapters.adapter import Adapter
from fccl.adapters.coded import CodedAdapter
from fccl.adapters.middle import has_middle, joined, moving
from fccl.adapters.short import drawn, middle_alone
from fccl.messages import FitTask
from fccl.specs import named_seed
from fccl.specs.codecs import CodecSpec


@dataclass(frozen=True, eq=False)
class Down:
    """The global adapter in few bytes, and what those have left out so far; None where there are no such bytes, or
    nothing was left out.
    """

    content: bytes | None
    lag: Adapter | None = None


def is_shorter(task: FitTask) -> bool:
    """Whether the next adapter travels in fewer bytes than a whole one: in a codec, or its middle matrices alone."""
    return not task.train.codec.is_whole or has_middle(task.adapter.form)


def begun(spec: CodecSpec, before: Down | None, had: Adapter, adapter: Adapter, seed: int | None) -> Down | None:
    """The way down of the adapter that a phase begins with: what was left out before it no longer counts.

    `before` is the way of `had`, the last round's adapter; `seed` that of the run, where this is its first round.
    """
    if spec.is_whole and not has_middle(adapter.form):
        return None
    if before is not None and adapter.sha256 == had.sha256:
        return Down(before.content)
    if seed is None and has_middle(adapter.form):
        return Down(middle_alone(adapter))  # everybody has its factors
    content = None if seed is None else drawn(adapter, seed)
    return None if content is None else Down(content)


def rounded(task: FitTask, before: Down | None, adapter: Adapter, is_last: bool) -> tuple[Adapter, Down | None]:
    """The next global adapter as the clients will have it, and its way down. `before` is the way of the task's own.

    After the last round of a run nobody trains from it: then it is whole, with all that was left out before. So is one
    of another form than the task's. Under fp32 an adapter with middle matrices sends those as they are.
    """
    wanted, lag = moving(adapter), before.lag if before else None
    if lag is not None and lag.form == wanted.form:
        wanted = Adapter.of_vector(wanted.vector + lag.vector, wanted.form)
        adapter = joined(wanted, adapter)
    if is_last or adapter.form != task.adapter.form:
        return adapter, None
    if task.train.codec.is_whole:
        return adapter, Down(middle_alone(adapter))
    seed = named_seed(task.seed, "codec", task.phase, task.round, "server")
    sent = CodedAdapter.of(wanted, moving(task.adapter), task.train.codec, seed)
    had = sent.load()
    return joined(had, adapter), Down(sent.content, Adapter.of_vector(wanted.vector - had.vector, wanted.form))
