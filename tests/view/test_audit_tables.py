"""An audit as tables."""

from fccl.records.audit import Attack, Audit, AuditedRun, Exposure, Membership
from fccl.records.evaluation import Estimate
from fccl.view.audit_tables import audit_tables


def estimate(value):
    return Estimate(value=value, low=value - 0.1, high=value + 0.1, n=300)


def attack(target, by, auc=0.5, exposure=None):
    told = Membership(auc=estimate(auc), found=0.02, members=300, others=250)
    planted = () if exposure is None else (Exposure(repeats=16, mean=estimate(exposure), chance=1.4),)
    return Attack(target=target, by=by, membership=told, exposures=planted)


def audit(*runs):
    return Audit(created=1.0, client=2, canaries=32, unused=1000, rounds=3, settings={}, runs=runs)


BARE = AuditedRun(
    name="none",
    attacks=(attack("released adapter", "loss", 0.55, 3.0), attack("update of round 3", "gradient signs", 0.7)),
    loss=0.5,
)
MASKED = AuditedRun(name="masks", attacks=(attack("released adapter", "a new one"),), loss=0.75)


def test_attacks_have_a_row_each_after_chance_in_words_that_a_narrow_screen_holds():
    table, _ = audit_tables(audit(BARE))
    assert table.head == ("protection", "attack", "AUC", "found at 1 % false", "exposure, 16 times")
    assert [[cell.text for cell in row] for row in table.cells] == [
        ["chance", "–", "0.50", "1 %", "1.40"],
        ["none", "adapter, loss", "0.55", "2.0 %", "3.00"],
        ["none", "update 3, signs", "0.70", "2.0 %", "–"],
    ]


def test_a_figure_stands_out_where_its_interval_lies_above_chance():
    table, _ = audit_tables(audit(BARE))
    assert [cell.strong for cell in table.cells[1]] == [False, False, False, False, True]
    assert [cell.strong for cell in table.cells[2]] == [False, False, True, False, False]


def test_what_each_protection_costs_is_a_table_of_its_own():
    attacks, costs = audit_tables(audit(BARE, MASKED))
    assert [row[0].text for row in attacks.cells] == ["chance", "none", "none", "masks"]
    assert attacks.cells[-1][1].text == "adapter, a new one", "words that it does not know stay"
    assert [[cell.text for cell in row] for row in costs.cells] == [["none", "0.500"], ["masks", "0.750"]]


def test_one_federation_alone_has_its_loss_too():
    assert [[cell.text for cell in row] for row in audit_tables(audit(BARE))[1].cells] == [["none", "0.500"]]
