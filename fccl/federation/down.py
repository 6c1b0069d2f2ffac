"""The way down: the next global adapter as its change of this one, where a codec asks for it.

The server rounds the adapter itself, not a copy of it for the clients. So everybody has the adapter that it validates
and commits, and a run has the same bytes whatever carries it and whoever joins late. The part that rounding left out
(`lag`) is added to the next round's adapter before that is rounded: nothing is lost, only late.
"""

from __future__ import annotations

from dataclasses import dataclass

from fccl.adapters.adapter import Adapter
from fccl.adapters.coded import CodedAdapter
from fccl.adapters.short import drawn
from fccl.codecs import CodecSpec
from fccl.messages import FitTask
from fccl.specs import named_seed


@dataclass(frozen=True, eq=False)
class Down:
    """The global adapter in few bytes, and what those have left out so far; None where there are no such bytes, or
    nothing was left out.
    """

    content: bytes | None
    lag: Adapter | None = None


def begun(spec: CodecSpec, before: Down | None, had: Adapter, adapter: Adapter, seed: int | None) -> Down | None:
    """The way down of the adapter that a phase begins with: what was left out before it no longer counts.

    `before` is the way of `had`, the last round's adapter; `seed` that of the run, where this is its first round.
    """
    if spec.is_whole:
        return None
    if before is not None and adapter.sha256 == had.sha256:
        return Down(before.content)
    content = None if seed is None else drawn(adapter, seed)
    return None if content is None else Down(content)


def rounded(task: FitTask, before: Down | None, adapter: Adapter, is_last: bool) -> tuple[Adapter, Down | None]:
    """The next global adapter as the clients will have it, and its way down. `before` is the way of the task's own.

    After the last round of a run nobody trains from it: then it is whole, with all that was left out before. So is one
    of another form than the task's.
    """
    lag = before.lag if before else None
    if lag is not None and lag.form == adapter.form:
        adapter = Adapter.of_vector(adapter.vector + lag.vector, adapter.form)
    if is_last or adapter.form != task.adapter.form:
        return adapter, None
    seed = named_seed(task.seed, "codec", task.phase, task.round, "server")
    sent = CodedAdapter.of(adapter, task.adapter, task.train.codec, seed)
    had = sent.load()
    return had, Down(sent.content, Adapter.of_vector(adapter.vector - had.vector, adapter.form))
