"""Clients that hold their own data: what they declare of it, once in a run, and as how much that counts.

The server sees no shard of theirs and has no manifest of one. So a number of examples is a claim. It is fixed for the
run, and no claim counts for more than a bound (`fccl.federation.bounds.capped`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fccl import phases
from fccl.data.overlap import marks_of
from fccl.display.words import plural
from fccl.federation.bounds import capped
from fccl.messages import ClientFailure, ClientUpdate, Declaration, DeclareTask, FitTask
from fccl.messages.declare import MOST_MARKS
from fccl.records.run import DeclaredCount, DeclaredSamples
from fccl.specs import PHASES, Phase
from fccl.transports.protocol import Transport

Declared = Mapping[int, DeclaredSamples]  # by client


@dataclass(frozen=True)
class OwnData:
    """Clients of this federation hold their own data: all, but those of which `known` has the numbers of examples.

    `instructions` are those of the server's splits, which no client should train on. `most` is the largest number of
    examples that a declaring client counts for; 0: it follows from the numbers of all.
    """

    instructions: Sequence[str] = ()
    most: int = 0
    known: Mapping[Phase, Mapping[int, int]] = field(default_factory=dict)

    def ask(
        self, fit: FitTask, clients: Sequence[int], known: Declared, transport: Transport, tell: Callable[[str], None]
    ) -> tuple[Declared, list[ClientFailure]]:
        """All that is declared once those of the clients of a round have declared that had not yet; and why some still
        have not. `tell` hears a line for each that has.
        """
        new = [client for client in clients if client not in known and not self.has_shard(client)]
        said, silent = declarations(transport, self.task(fit.run_id, fit.round, fit.phase), new)
        declared = {**known, **said}
        for client in sorted(said):
            tell(sentence(said[client], {phase: self.counted(declared, phase)[client] for phase in PHASES}))
        return declared, silent

    def task(self, run_id: str, round_number: int, phase: Phase) -> DeclareTask:
        """The request for declarations; without marks where they are more than a request may have."""
        marks = marks_of(self.instructions, run_id)
        return DeclareTask(run_id, round_number, phase, marks if len(marks) <= MOST_MARKS else ())

    def has_shard(self, client: int) -> bool:
        """Whether the server knows the client's data."""
        return any(client in of_phase for of_phase in self.known.values())

    def counted(self, declared: Declared, phase: Phase) -> Mapping[int, int]:
        """As how many examples each client that has declared counts in a phase. Known numbers speak for the bound."""
        said = {client: said.samples(phase) for client, said in declared.items()}
        bounded = capped({**self.known.get(phase, {}), **said}, self.most)
        return {client: bounded[client] for client in said}

    def weighed(self, updates: Sequence[ClientUpdate], declared: Declared) -> list[ClientUpdate]:
        """The updates as weights are to be made of them: with the numbers of examples that count."""
        if not updates:
            return []
        counts = self.counted(declared, updates[0].phase)
        return [
            replace(
                update,
                contribution=update.contribution.model_copy(update={"num_samples": counts[update.client_id]}),
            )
            if update.client_id in counts
            else update
            for update in updates
        ]

    def record(self, clients: Sequence[int], declared: Declared, phase: Phase) -> tuple[DeclaredCount, ...]:
        """The declared and the counted numbers of those of these clients that have declared."""
        counts = self.counted(declared, phase)
        return tuple(
            DeclaredCount(client_id=client, samples=declared[client].samples(phase), counted=counts[client])
            for client in clients
            if client in counts
        )


def declarations(
    transport: Transport, task: DeclareTask, clients: Sequence[int]
) -> tuple[dict[int, DeclaredSamples], list[ClientFailure]]:
    """The declarations of these clients, and why the others have none, in client order."""
    said: dict[int, DeclaredSamples] = {}
    failures: dict[int, ClientFailure] = {}
    for answer in transport.ask(task, clients) if clients else ():
        if answer.client_id in clients and isinstance(answer, Declaration):
            said.setdefault(answer.client_id, _declared(answer))
        elif isinstance(answer, ClientFailure):
            failures[answer.client_id] = replace(answer, reason=f"has not declared its examples: {answer.reason}")
    missing = [client for client in clients if client not in said]
    return said, [failures.get(client, ClientFailure(client, "has not declared its examples")) for client in missing]


def sentence(said: DeclaredSamples, counted: Mapping[Phase, int]) -> str:
    """One line on a declaration, and on how much of it counts."""
    parts = [f"client {said.client_id} declares {plural(said.sft, 'instruction')} and {plural(said.va, 'pair')}"]
    if not (said.sft or said.va):
        parts.append("it is not asked to train")
    parts += [
        f"{said.samples(phase):,} {phases.of(phase).noun}s count as {counted[phase]:,} (MAX_CLIENT_SAMPLES)"
        for phase in PHASES
        if counted[phase] < said.samples(phase)
    ]
    if said.overlap is None:
        parts.append("whether the server's splits have some of them is not checked")
    elif said.overlap:
        parts.append(f"{said.overlap:,} of its instructions are in the server's splits: the evaluation is too kind")
    return "; ".join(parts)


def _declared(said: Declaration) -> DeclaredSamples:
    return DeclaredSamples(client_id=said.client_id, sft=said.sft, va=said.va, overlap=said.overlap)
