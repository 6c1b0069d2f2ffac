"""A run from Python: iterated over, left early, resumed, finished."""

import dataclasses
from itertools import islice

import pytest

from fccl.adapters.adapter import load_adapter
from fccl.errors import FederationError, StorageError
from fccl.federation.run import Run
from fccl.federation.run_folder import RunFolder
from fccl.paths import DataPaths
from fccl.records.run import RoundRecord, RunEvent, Validation
from fccl.storage.files import write_text
from fccl.storage.reading import read_records
from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.tracking.listener import Listeners, RunListener, Stop
from fccl.transports.in_process import InProcessTransport

BASE = Validation(loss=5.0, examples=3)


class Heard(RunListener):
    """Writes down each kind of news."""

    def __init__(self):
        self.news, self.stops = [], []

    def started(self, info, base):
        self.news.append(("started", base))

    def resumed(self, info, base, past, next_round):
        self.news.append(("resumed", base, [record.round for record, _ in past], next_round))

    def status(self, status):
        self.news.append(("status", status.client_id))

    def answer(self, answer):
        self.news.append(("answer", answer.client_id))

    def round(self, record, metrics):
        self.news.append(("round", record.round, [line.client_id for line in metrics]))

    def stopped(self, stop):
        self.stops.append(stop)

    def finished(self):
        self.news.append(("finished",))


@pytest.fixture
def transport():
    return InProcessTransport(ToyLearner(), shard)


@pytest.fixture
def folder(tmp_path):
    return RunFolder.at(tmp_path / "logs")


def a_run(folder, listener=None, fed=None, **changes):
    return Run(fed or federation(2, 1), folder, lambda: START.adapter, listener or RunListener(), **changes)


def events(folder):
    return [event.event for event in read_records(folder.paths.progress, RunEvent, lambda row: row["event"] != "round")]


def test_a_run_is_iterated_over_and_finished(folder, transport):
    run = a_run(folder)
    seen = [(result.record.round, folder.state().next_round) for result in run.rounds(transport)]
    assert seen == [(0, 1), (1, 2)], "each is on the disk before it is given"
    final = run.finish(transport)
    assert final.sha256 == run.state.adapter.sha256 == load_adapter(folder.paths.global_final).sha256
    assert events(folder) == ["started", "finished"]


def test_a_loop_that_is_left_leaves_a_run_that_goes_on_to_the_same_bytes(folder, transport, tmp_path):
    whole = a_run(RunFolder.at(tmp_path / "whole"), fed=federation(4, 2))
    list(whole.rounds(transport))
    heard = Heard()
    for result in a_run(folder, heard, federation(4, 2)).rounds(transport):
        if result.record.round == 1:
            break
    assert heard.stops == [Stop(2, 4, resumable=True)]
    assert events(folder) == ["started", "interrupted"]
    later = a_run(folder, fed=federation(4, 2))
    assert [result.record.round for result in later.rounds(transport, resume=True)] == [2, 3]
    assert later.finish(transport).to_bytes() == whole.state.adapter.to_bytes()
    rounds = read_records(folder.paths.progress, RoundRecord, lambda row: row["event"] == "round")
    assert [record.round for record in rounds] == [0, 1, 2, 3]


def test_a_loop_that_is_left_after_the_last_round_was_not_stopped(folder, transport):
    heard = Heard()
    for result in a_run(folder, heard).rounds(transport):
        if result.state.next_round == 2:
            break
    assert (heard.stops, events(folder)) == ([], ["started"])


def test_a_run_left_early_can_be_finished_as_it_is(folder, transport):
    run = a_run(folder)
    list(islice(run.rounds(transport), 1))
    assert run.finish(transport).sha256 == load_adapter(folder.paths.global_final).sha256
    assert folder.state().next_round == 1


def test_a_listener_hears_everything_in_order(folder, transport):
    heard, also = Heard(), Heard()
    validated = dataclasses.replace(federation(2, 1), validate=lambda phase, adapter, reference: BASE)
    run = a_run(folder, Listeners((heard, also)), validated)
    list(islice(run.rounds(transport), 1))
    of_round = [said for client in (0, 1) for said in [("status", client)] * 2 + [("answer", client)]]
    first = [("started", BASE), *of_round, ("round", 0, [0, 1])]
    assert heard.news == first
    list(run.rounds(transport, resume=True))
    run.finish(transport)
    assert heard.news[len(first) :] == [("resumed", BASE, [0], 1), *of_round, ("round", 1, [0, 1]), ("finished",)]
    assert also.news == heard.news


def test_what_stops_a_run_is_said_with_whether_it_goes_on(folder):
    heard, broken = Heard(), InProcessTransport(ToyLearner(broken=frozenset({0, 1})), shard)
    with pytest.raises(FederationError, match="MIN_CLIENTS is 1"):
        list(a_run(folder, heard).rounds(broken))
    assert heard.stops == [Stop(0, 2, resumable=True)]
    assert events(folder) == ["started", "failed"]


def test_an_interrupt_is_said_and_goes_on_its_way(folder):
    heard, stopped = Heard(), InProcessTransport(ToyLearner(errors={1: KeyboardInterrupt()}), shard)
    with pytest.raises(KeyboardInterrupt):
        list(a_run(folder, heard).rounds(stopped))
    assert heard.stops == [Stop(0, 2, resumable=True)]
    assert events(folder) == ["started", "interrupted"]


def test_an_earlier_run_is_kept_aside(folder, transport):
    first = a_run(folder)
    list(first.rounds(transport))
    second = a_run(folder)
    list(islice(second.rounds(transport), 1))
    earlier = RunFolder.at(folder.paths.archive / first.identity.run_id)
    assert earlier.state().finished
    assert folder.info().run_id == second.identity.run_id


def test_before_it_has_begun_there_is_nothing_to_finish_or_resume(folder, transport):
    run = a_run(folder)
    with pytest.raises(FederationError, match="the run has not begun"):
        run.finish(transport)
    with pytest.raises(FederationError, match="the data was prepared anew since the run began"):
        next(run.rounds(transport, resume=True))


def test_data_that_is_changed_meanwhile_ends_the_run_before_it_is_finished(folder, transport, tmp_path):
    data = DataPaths(tmp_path / "data")
    write_text(data.manifest, "{}")
    run = a_run(folder, data=data)
    list(run.rounds(transport))
    assert folder.paths.manifest.read_text() == "{}"
    write_text(data.manifest, "{} ")
    with pytest.raises(StorageError, match="was changed while the run was at work"):
        run.finish(transport)
    with pytest.raises(FederationError, match="the data was prepared anew since the run began"):
        next(a_run(folder, data=data).rounds(transport, resume=True))


def test_the_final_adapter_is_exported_in_another_form_too(folder, transport):
    written = {}
    run = a_run(folder, export=lambda adapter, path: written.update({path: adapter.sha256}))
    list(run.rounds(transport))
    assert written == {}
    run.finish(transport)
    assert written == {folder.paths.adapter: run.state.adapter.sha256}
