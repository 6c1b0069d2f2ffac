"""The end of a phase: who is asked for an own test, when, and where the answers stand."""

import json

from fccl.errors import DataError
from fccl.federation.own_tests import OwnTests
from fccl.federation.run import Run
from fccl.federation.run_folder import RunFolder
from fccl.library.reading import read_run
from fccl.messages import OwnTest, OwnTestTask
from fccl.records.run import OwnTestResult
from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.tracking.listener import RunListener
from fccl.transports.in_process import InProcessTransport
from fccl.transports.protocol import RunIdentity
from fccl.view.own_tests import own_tests_table


class ToyTester:
    """A client's figures are its number; client 2 has none. Notes what it was asked."""

    asked = OwnTestTask

    def __init__(self):
        self.requests = []

    def answer(self, request, shard, on_status):
        self.requests.append((shard.client_id, request.round, request.phase, request.rates, request.start.sha256))
        if shard.client_id == 2:
            raise DataError("keeps nothing apart")
        losses = {"base": 3.0, "alone": 1.0 + shard.client_id, "together": 2.5}
        return OwnTest(client_id=shard.client_id, examples=4, units=9, **losses)


class Lines(RunListener):
    def __init__(self):
        self.lines = []

    def told(self, line):
        self.lines.append(line)


def run_of(folder, tester, learner=None, listener=None):
    own = None if tester is None else OwnTests(4)
    run = Run(
        federation(),
        RunFolder.at(folder),
        lambda: START.adapter,
        listener or RunListener(),
        identity=RunIdentity("run"),
        own_tests=own,
    )
    services = [] if tester is None else [tester]
    return run, InProcessTransport(learner or ToyLearner(), shard, services)


def test_every_client_is_asked_in_the_last_round_of_each_phase_and_the_record_has_its_means(tmp_path):
    tester, lines = ToyTester(), Lines()
    run, transport = run_of(tmp_path, tester, listener=lines)
    results = list(run.rounds(transport))
    reference = results[1].state.adapter.sha256
    assert tester.requests == [(client, 1, "sft", (0.1, 0.1), START.adapter.sha256) for client in range(4)] + [
        (client, 3, "va", (0.1, 0.1), reference) for client in range(4)
    ]
    assert [[each.client_id for each in result.record.own_tests] for result in results] == [
        [],
        [0, 1, 3],
        [],
        [0, 1, 3],
    ]
    assert any("client 2: no own test" in line and "keeps nothing apart" in line for line in lines.lines)


def test_own_tests_change_no_adapter_and_a_record_without_them_is_what_it_was(tmp_path):
    with_tests, without = (run_of(tmp_path / name, tester) for name, tester in (("one", ToyTester()), ("two", None)))
    results = [list(run.rounds(transport)) for run, transport in (with_tests, without)]
    assert [each.state.adapter.sha256 for each in results[0]] == [each.state.adapter.sha256 for each in results[1]]
    assert "own_tests" not in json.loads(results[1][1].record.model_dump_json())


def test_a_client_that_was_left_out_of_the_round_is_not_waited_for(tmp_path):
    tester = ToyTester()
    run, transport = run_of(tmp_path, tester, ToyLearner(broken=frozenset({1})))
    list(run.rounds(transport))
    assert 1 not in {client for client, *_ in tester.requests}


def test_the_table_says_whom_the_federation_helped(tmp_path):
    run, transport = run_of(tmp_path, ToyTester())
    list(run.rounds(transport))
    table = own_tests_table(read_run(tmp_path).own_tests)
    assert [row[0].text for row in table.cells] == ["0", "1", "3", "0", "1", "3"]
    assert [row[-1].text for row in table.cells[:3]] == ["+1.500", "+0.500", "−1.500"]
    assert [row[-1].verdict for row in table.cells[:3]] == ["worse", "worse", "better"]
    assert "beats training alone in 2 of 6 rows" in table.note
    (tmp_path / "none").mkdir()
    run, transport = run_of(tmp_path / "none", None)
    list(run.rounds(transport))
    assert own_tests_table(read_run(tmp_path / "none").own_tests) is None


def test_with_personal_adapters_the_table_holds_them_against_both():
    own = [
        ("sft", OwnTestResult(client_id=0, examples=4, units=9, base=3.0, alone=2.0, together=2.5, personal=1.5)),
        ("sft", OwnTestResult(client_id=1, examples=4, units=9, base=3.0, alone=1.0, together=2.5, personal=1.5)),
        ("sft", OwnTestResult(client_id=2, examples=4, units=9, base=3.0, alone=1.0, together=2.5)),
    ]
    table = own_tests_table(own)
    assert table.head[3:] == (
        *("base", "alone", "global", "personal"),
        *("global against alone", "personal against global", "personal against alone"),
    )
    assert [[cell.verdict for cell in row[-2:]] for row in table.cells] == [
        ["better", "better"],
        ["better", "worse"],
        ["", ""],
    ]
    assert "beats both in 1 of 2 rows" in table.note
    assert own_tests_table([(phase, each.model_copy(update={"personal": None})) for phase, each in own]).head[3:6] == (
        *("base", "alone", "global"),
    )
