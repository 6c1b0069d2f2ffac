"""Tables of what was asked after a run."""

from fccl.records.after import (
    ClientInfluence,
    ClientMatrix,
    Finding,
    Forgotten,
    HelpsWhom,
    Influence,
    MeasuredInfluence,
    Replay,
    ReplayedRound,
    RunCheck,
    WhatIsLeft,
)
from fccl.records.run import Validation
from fccl.view.after import check_table, forgotten_table, influence_tables, matrix_tables, replay_table, verdict


def clients(*values, error=0.0):
    return tuple(
        ClientInfluence(client_id=client, rounds=2, left_out=value / 2, shapley=value, error=error)
        for client, value in enumerate(values)
    )


def influence(*values, error=0.0, orders=0):
    measured = MeasuredInfluence(
        measure="pairs", unit="nats per pair", examples=9, before=1.0, after=0.4, clients=clients(*values, error=error)
    )
    return Influence(
        run_id="run",
        time=1.0,
        first_round=0,
        rounds=2,
        orders=orders,
        coalitions=8,
        says="A guess.",
        measures=(measured,),
    )


def replay(**changes):
    rounds = [
        ReplayedRound(
            round=number,
            phase="sft",
            clients=(0, 2),
            weights=(0.5, 0.5),
            recorded=Validation(loss=1.0, examples=3),
            replayed=Validation(loss=1.0 + number, examples=3),
            same=number == 0,
            adapter_sha256="x",
        )
        for number in range(2)
    ]
    said = {"run_id": "run", "time": 1.0, "says": "A guess.", "rounds": tuple(rounds), "adapter_sha256": "x"}
    return Replay(**(said | changes))


def test_a_replay_says_what_was_changed_and_what_it_is_not():
    table = replay_table(replay(changes={"aggregation": "median"}, without=(1,), retrained_from=1))
    assert table.title == "Replay of run run: AGGREGATION=median, without client 1, trained anew from round 2"
    assert table.note == "A guess."
    assert [[cell.text for cell in row[3:]] for row in table.cells] == [
        ["1.000", "1.000", "+0.0000", "the same"],
        ["1.000", "2.000", "+1.0000", "others"],
    ]


def test_clients_are_ranked_by_their_values_and_harm_has_a_minus():
    (table,) = influence_tables(influence(0.1, 0.7, -0.2))
    assert [row[0].text for row in table.cells] == ["client 1", "client 0", "client 2"]
    assert [row[3].text for row in table.cells] == ["+0.7000", "+0.1000", "−0.2000"]
    assert [row[3].interval for row in table.cells] == [""] * 3
    (drawn,) = influence_tables(influence(0.1, 0.7, error=0.05, orders=9))
    assert [row[3].interval for row in drawn.cells] == ["± 0.0500"] * 2
    assert "A guess." in drawn.note


def check(*outcomes):
    findings = tuple(Finding(name=f"check {n}", outcome=each, detail="why") for n, each in enumerate(outcomes))
    return RunCheck(run_id="run", time=1.0, fccl="1", adapter_sha256="", findings=findings)


def test_a_verdict_counts_what_holds_and_says_when_something_does_not():
    assert verdict(check("ok", "ok", "not checked")) == (
        "Run run: nothing was found wrong, and no round could be made again; 2 checks hold, 0 fail, 1 could not be made"
    )
    made_again = check("ok").findings[0].model_copy(update={"name": "round 1"})
    assert "nothing was found wrong; 1 " in verdict(check().model_copy(update={"findings": (made_again,)}))
    assert "not as it was made; 1 checks hold, 1 fail" in verdict(check("ok", "failed"))
    assert [cell.strong for row in check_table(check("ok", "failed")).cells for cell in row[1:2]] == [False, True]


def forgotten(*left, client_id=1, **changes):
    values = {"first_round": 0, "seconds": 2.0, "says": "Trained anew.", "removed": (), "still": ()}
    hashes = {"adapter_sha256": "x", "never_sha256": "x"}
    return Forgotten(run_id="run", time=1.0, client_id=client_id, left=left, **(values | hashes | changes))


def test_what_is_left_is_a_row_for_each_model_and_phase():
    models = "the run", "never had it"
    found = forgotten(*(WhatIsLeft(model=model, phase="va", examples=4, loss=0.5) for model in models))
    table = forgotten_table(found)
    assert [row[0].text for row in table.cells] == ["the run", "never had it"]
    assert table.note == "Trained anew."


def test_a_matrix_has_a_row_an_update_and_is_darkest_where_one_helps_most():
    found = HelpsWhom(
        phase="sft", rounds=2, updates=(0, 3), owners=(0, 1), examples=(5, 7), falls=((0.4, -0.1), (0.2, 0.0))
    )
    (table,) = matrix_tables(ClientMatrix(run_id="run", time=1.0, phases=(found,)))
    assert table.head == ("update of", "data of 0 (5)", "data of 1 (7)")
    assert [[cell.text for cell in row] for row in table.cells] == [
        ["client 0", "+0.4000", "−0.1000"],
        ["client 3", "+0.2000", "+0.0000"],
    ]
    assert [[cell.shade for cell in row[1:]] for row in table.cells] == [[1.0, 0.0], [0.5, 0.0]]
    assert table.note.endswith("In brackets: how many examples.")


def test_a_matrix_marks_a_column_of_too_few_examples_and_shades_the_others_without_it():
    found = HelpsWhom(
        phase="va", rounds=1, updates=(0, 3), owners=(0, 1), examples=(1, 7), falls=((9.0, 0.4), (-2.0, 0.2))
    )
    (table,) = matrix_tables(ClientMatrix(run_id="run", time=1.0, phases=(found,)))
    assert table.head == ("update of", "data of 0 (1: few)", "data of 1 (7)")
    assert [[cell.shade for cell in row[1:]] for row in table.cells] == [[None, 1.0], [None, 0.5]]
    assert "Columns with fewer than 5 examples are of those, not of the client." in table.note
    only = found.model_copy(update={"owners": (0,), "examples": (1,), "falls": ((9.0,), (-2.0,))})
    (table,) = matrix_tables(ClientMatrix(run_id="run", time=1.0, phases=(only,)))
    assert [row[1].text for row in table.cells] == ["+9.0000", "−2.0000"]
