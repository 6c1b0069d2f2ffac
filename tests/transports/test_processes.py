"""Clients in processes beside this one."""

import os
from contextlib import nullcontext

import pytest

from fccl.errors import StorageError
from fccl.messages import ClientFailure
from fccl.processes.pool import Pool, Returned
from fccl.testing.transport import CLIENTS, TransportContract, answers, task
from fccl.transports.processes import DIED_TWICE, ProcessesTransport
from fccl.transports.protocol import Listener, RunIdentity
from tests.processes.workers import Asked, Mortal
from tests.transports.toys import Toys


@pytest.fixture(scope="module")
def toys():
    """Two processes for all tests of the contract: each loads torch."""
    with Pool(Toys, 2) as pool:
        pool.start(2)
        yield pool


def become(pool, broken=(), errors=None):
    """The transport to toy clients that are broken in this way."""
    for worker in range(pool.count):
        pool.tell(worker, "become", broken, errors)
    events = []
    while len(events) < pool.count:
        events += pool.events()
    assert all(isinstance(event, Returned) for event in events)
    return ProcessesTransport(pool)


class TestProcesses(TransportContract):
    @pytest.fixture
    def make(self, toys):
        return lambda broken=(), errors=None: nullcontext(become(toys, broken, errors))


def test_clients_work_in_other_processes_and_each_again_where_it_was(toys):
    transport, heard = become(toys), []
    transport.begin(RunIdentity("run"), Listener(heartbeat=heard.append))
    for number in range(3):
        answers(transport, range(CLIENTS), number)
    places = {(status.client_id, status.pid) for status in heard}
    assert len(places) == CLIENTS
    assert len({pid for _, pid in places}) == 2
    assert os.getpid() not in {pid for _, pid in places}


def test_the_largest_shards_come_first_and_the_shares_are_even(toys):
    become(toys)
    transport, heard = ProcessesTransport(toys, lambda phase: {0: 5, 1: 4, 2: 3, 3: 2}), []
    transport.begin(RunIdentity("run"), Listener(heartbeat=heard.append))
    answers(transport, range(CLIENTS))
    by_process = {}
    for status in heard:
        clients = by_process.setdefault(status.pid, [])
        clients += [status.client_id] if status.client_id not in clients else []
    assert sorted(by_process.values()) == [[0, 3], [1, 2]]


def test_a_client_whose_process_is_killed_answers_from_another_and_one_that_kills_each_fails(tmp_path):
    told, failed = [], []
    with ProcessesTransport(Pool(Mortal, 2)) as transport:
        transport.begin(RunIdentity("run"), Listener(failed.append, told.append))
        found = list(transport.ask(Asked(str(tmp_path)), (0, 1, 2, 3)))
    assert sorted(each[0] for each in found if not isinstance(each, ClientFailure)) == [0, 1, 3]
    assert [each for each in found if isinstance(each, ClientFailure)] == [ClientFailure(2, DIED_TWICE)]
    assert [(status.client_id, status.state) for status in failed] == [(2, "failed")]
    assert sorted(told) == [
        f"The process of client {client} has ended: its work is done again in a new one." for client in (1, 2)
    ]


def test_what_is_not_the_clients_doing_ends_the_request(toys):
    transport = become(toys, errors={1: StorageError("the disk is full", hint="make room")})
    with pytest.raises(StorageError, match="the disk is full") as error:
        list(transport.ask(task(), (0, 1, 2, 3)))
    assert error.value.hint == "make room"
