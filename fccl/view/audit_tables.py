"""An audit as a table, for every screen and file that shows it."""

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


def audit_table(audit: Audit) -> Table:
    """A row for each attack, by protection; the first row is chance."""
    repeats = [each.repeats for run in audit.runs for attack in run.attacks for each in attack.exposures]
    planted = sorted(set(repeats))
    head = (
        *("protection", "released", "attack", "AUC", "found at 1 % false"),
        *(f"exposure, {plural(times, 'time')}" for times in planted),
        "validation loss",
    )
    rows = [_chance(audit, planted)]
    rows += [_row(run, attack, planted) for run in audit.runs for attack in run.attacks]
    return Table("Audit", head, tuple(rows), _note(audit), words=frozenset({1, 2}))


def closed_lines(audit: Audit) -> tuple[str, ...]:
    """The attacks that could not be tried, each in a sentence."""
    return tuple(f"Not tried, protection {run.name}: {line}." for run in audit.runs for line in run.closed)


def _note(audit: Audit) -> str:
    told = audit.runs[0].attacks[0].membership
    return (
        f"Client {audit.client}, {plural(audit.rounds, 'SFT round')}. AUC of {told.members} members against "
        f"{told.others} of the client's examples that were held out. Exposure in bits, of {audit.canaries} canaries "
        f"that were planted so often, by rank among {audit.unused:,} that were not. Intervals 95 %; a figure stands "
        f"out where its interval lies above chance. {CAUTION}"
    )


def _chance(audit: Audit, planted: list[int]) -> tuple[Cell | str, ...]:
    known = {each.repeats: each.chance for run in audit.runs for attack in run.attacks for each in attack.exposures}
    return ("chance", DASH, DASH, "0.50", "1 %", *(f"{known[times]:.2f}" for times in planted), DASH)


def _row(run: AuditedRun, attack: Attack, planted: list[int]) -> tuple[Cell | str, ...]:
    told, exposed = attack.membership, {each.repeats: each for each in attack.exposures}
    return (
        run.name,
        attack.target,
        attack.by,
        _estimate(told.auc, 0.5),
        f"{100 * told.found:.1f} %",
        *(_estimate(exposed[times].mean, exposed[times].chance) if times in exposed else DASH for times in planted),
        loss(run.loss) if attack is run.attacks[0] else DASH,
    )


def _estimate(found: Estimate, chance: float) -> Cell:
    """Strong where the interval lies above chance."""
    return Cell(f"{found.value:.2f}", interval=f"{found.low:.2f} to {found.high:.2f}", strong=found.low > chance)
