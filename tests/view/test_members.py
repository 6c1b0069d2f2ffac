"""Who joined and left, on every screen: the table, the clients that are shown, and the rounds."""

from fccl.paths import ExchangePaths
from fccl.records.members import Departure, KeptMembers
from fccl.records.run import RunState
from fccl.storage.reading import read_value
from fccl.view.members import member_numbers, members_table
from fccl.view.runs import RunReader
from fccl.view.status import run_status
from tests.view.logs import BEGAN, line


def moved(logs, number, joined=(), left=(), revoked=()):
    """A complete round before which these clients came and went."""
    gone = [Departure(client_id=client) for client in left]
    gone += [Departure(client_id=client, revoked=True) for client in revoked]
    record = logs.record(number).model_copy(update={"joined": joined, "left": tuple(gone)})
    logs.append(logs.paths.progress, record)
    logs.commit(number + 1)


def test_the_newest_move_comes_first_with_the_round_that_it_came_before(logs):
    logs.begin(open="True")
    moved(logs, 0)
    moved(logs, 1, joined=(7,), left=(0,))
    moved(logs, 2, revoked=(1,))
    table = members_table(RunReader(logs.paths).refresh())
    assert [[cell.text for cell in row] for row in table.cells] == [
        ["1", "✗ its key was revoked", "3"],
        ["0", "– left", "2"],
        ["7", "✓ joined", "2"],
    ]


def test_the_clients_that_are_shown_are_the_members(logs, exchange):
    logs.begin(open="True")
    moved(logs, 0)
    assert [
        row.client for row in run_status(RunReader(logs.paths, ExchangePaths(exchange)).refresh(), BEGAN).clients
    ] == [
        0,
        1,
        2,
    ]
    moved(logs, 1, joined=(7,), left=(0,))
    logs.beat(7, "training", 2, BEGAN + 200, exchange)
    logs.beat(0, "training", 2, BEGAN + 200, exchange)
    view = RunReader(logs.paths, ExchangePaths(exchange)).refresh()
    assert [row.client for row in run_status(view, BEGAN + 200).clients] == [1, 2, 7]
    assert [status.client_id for status in view.statuses] == [7]


def test_a_state_that_names_the_members_is_believed(logs):
    logs.begin(open="True")
    moved(logs, 0)
    state = read_value(logs.paths.state, RunState)
    logs.paths.state.write_bytes(line(state.model_copy(update={"members": KeptMembers(clients=(2, 9))})))
    assert member_numbers(RunReader(logs.paths).refresh(), 3) == [2, 9]


def test_a_run_of_fixed_members_has_no_table(logs):
    logs.begin()
    logs.round(0)
    view = RunReader(logs.paths).refresh()
    assert members_table(view) is None
    assert member_numbers(view, 3) == [0, 1, 2]
