"""A round's answers, gathered as they come: exactly one of each selected client."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fccl.messages import Answer, ClientFailure, ClientUpdate, FitTask
from fccl.transports.protocol import Transport


def gathered(
    task: FitTask,
    selected: Sequence[int],
    transport: Transport,
    judge: Callable[[Answer], Answer],
    on_answer: Callable[[Answer], None],
) -> tuple[list[ClientUpdate], list[ClientFailure]]:
    """The good updates and the failures, both in client order: exactly one of them for every selected client.

    `judge` makes a failure of an answer that cannot count; `on_answer` hears of each that is taken.
    """
    updates: dict[int, ClientUpdate] = {}
    failures: dict[int, ClientFailure] = {}
    for answer in map(judge, transport.ask(task, selected) if selected else ()):
        if answer.client_id not in selected or answer.client_id in updates:
            continue  # nobody asked, or it answered already
        on_answer(answer)
        if isinstance(answer, ClientUpdate):
            updates[answer.client_id] = answer
            failures.pop(answer.client_id, None)
        else:
            failures[answer.client_id] = answer
    for client_id in selected:
        if client_id not in updates and client_id not in failures:
            failures[client_id] = ClientFailure(client_id, "no answer")
            on_answer(failures[client_id])
    return [updates[key] for key in sorted(updates)], [failures[key] for key in sorted(failures)]
