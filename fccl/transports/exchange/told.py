"""Lines of an exchange client about its rounds, and the facts of an answer that its message says."""

from __future__ import annotations

from pathlib import Path

from fccl.adapters.ranks import rank_of
from fccl.display.plain_text import printable
from fccl.messages import ClientUpdate
from fccl.transports.exchange.wire import TaskFile, UpdateFile


def no_round(root: Path) -> str:
    """A hint for a client that nobody has asked anything."""
    return (
        f"no round so far in {printable(str(root.absolute()))}: the orchestrator must be running, and its EXCHANGE_DIR "
        "must be this very folder"
    )


def why_idle(task: TaskFile, client_id: int) -> str:
    """Why a client does not train in a round; empty where it does."""
    if client_id in task.revoked:
        return (
            f"the key of client {client_id} was revoked: the server takes nothing that it sends, so it does not train; "
            "ask for a key of a new number (`fccl keys --add 1`)"
        )
    asked = task.work.clients if task.work else ()
    return "" if client_id in asked else f"round {task.round + 1} ({task.phase}): not asked"


def own_rank(task: TaskFile, answer: ClientUpdate) -> int | None:
    """The rank of an update, where it is not the federation's."""
    rank = rank_of(answer.adapter.form)
    return None if rank == 0 or task.work is None or rank == task.work.model.lora_r else rank


def update_line(said: UpdateFile) -> str:
    """A line on an update that was sent."""
    if said.masked is not None:
        return "a masked update, and no figure of the training"
    return (
        f"loss {said.avg_loss:.3f}, {said.num_samples} samples, {said.training_time:.1f} s, "
        f"{said.report.tokens_per_second:,.0f} tokens/s"
    )
