"""An audit as tables, for every screen and file that shows it."""

from __future__ import annotations

from fccl.display.tables import Cell, Table
from fccl.display.words import DASH, loss, plural
from fccl.records.audit import Attack, Audit, AuditedRun
from fccl.records.evaluation import Estimate

AUDIT_LEAD = "Attacks on a federation of its own (“fccl audit”), under the settings that it names."
CAUTION = (
    "An attack that does no better than chance proves nothing: these are some attacks, on one client, in one run. "
    "Others may do better. Only an ε bounds all of them."
)


def audit_tables(audit: Audit) -> tuple[Table, ...]:
    """The attacks, and what each protection costs."""
    return attacks_table(audit), costs_table(audit)


def attacks_table(audit: Audit) -> Table:
    """A row for each attack, by protection; the first row is chance."""
    repeats = [each.repeats for run in audit.runs for attack in run.attacks for each in attack.exposures]
    planted = sorted(set(repeats))
    head = (
        *("protection", "attack", "AUC", "found at 1 % false"),
        *(f"exposure, {plural(times, 'time')}" for times in planted),
    )
    rows = [_chance(audit, planted)]
    rows += [_row(run, attack, planted) for run in audit.runs for attack in run.attacks]
    return Table("Audit", head, tuple(rows), _note(audit), words=frozenset({1}))


def costs_table(audit: Audit) -> Table:
    """The loss of each released adapter on the validation split."""
    rows = tuple((run.name, loss(run.loss)) for run in audit.runs)
    return Table("Audit: what protection costs", ("protection", "validation loss"), rows)


def closed_lines(audit: Audit) -> tuple[str, ...]:
    """The attacks that could not be tried, each in a sentence."""
    return tuple(f"Not tried, protection {run.name}: {line}." for run in audit.runs for line in run.closed)


def _note(audit: Audit) -> str:
    told = audit.runs[0].attacks[0].membership
    return (
        f"Client {audit.client}, {plural(audit.rounds, 'SFT round')}. Attacks by the loss, or by the signs of "
        "gradients, on the released adapter and on the client's updates of the rounds whose number they have. AUC of "
        f"{told.members} members against {told.others} of the client's examples that were held out. Exposure in bits, "
        f"of {audit.canaries} canaries that were planted so often, by rank among {audit.unused:,} that were not. "
        f"Intervals 95 %; a figure stands out where its interval lies above chance. {CAUTION}"
    )


def _chance(audit: Audit, planted: list[int]) -> tuple[Cell | str, ...]:
    known = {each.repeats: each.chance for run in audit.runs for attack in run.attacks for each in attack.exposures}
    return ("chance", DASH, "0.50", "1 %", *(f"{known[times]:.2f}" for times in planted))


def _row(run: AuditedRun, attack: Attack, planted: list[int]) -> tuple[Cell | str, ...]:
    told, exposed = attack.membership, {each.repeats: each for each in attack.exposures}
    return (
        run.name,
        f"{_short(attack.target)}, {_short(attack.by)}",
        _estimate(told.auc, 0.5),
        f"{100 * told.found:.1f} %",
        *(_estimate(exposed[times].mean, exposed[times].chance) if times in exposed else DASH for times in planted),
    )


def _short(text: str) -> str:
    """The words of a record in a narrow column; words that it does not know stay."""
    return text.replace("released ", "").replace("update of round ", "update ").replace("gradient ", "")


def _estimate(found: Estimate, chance: float) -> Cell:
    """Strong where the interval lies above chance."""
    return Cell(f"{found.value:.2f}", interval=f"{found.low:.2f} to {found.high:.2f}", strong=found.low > chance)
