"""Requests of other kinds than `fit` in the exchange directory."""

import dataclasses
import json
import re
import threading

import pytest

from fccl.errors import FederationError, ForeignAnswer, UpdateRejected
from fccl.keys import client_keys, create_keys, server_keys
from fccl.messages import ClientEvaluation, ClientFailure, ClientUpdate
from fccl.paths import KeyPaths
from fccl.records.rejection import Rejection
from fccl.storage.files import write_text
from fccl.testing.toy import ToyLearner, adapter, shard
from fccl.testing.toy_requests import AskMaskedCounts, ToyEvaluator, toy_services
from fccl.testing.transport import answers, asked, evaluation
from fccl.transports.exchange.client import ExchangeClient
from fccl.transports.exchange.memory import Memory
from fccl.transports.exchange.requests import OpenRequest
from fccl.transports.exchange.wire import MAX_TASK_BYTES, RequestFile
from fccl.transports.protocol import Listener, RunIdentity
from tests.transports.exchange_tools import finish, until
from tests.transports.obstacles import OBSTACLES, put


@pytest.fixture
def keys(tmp_path):
    folder = KeyPaths(tmp_path / "keys")
    create_keys(folder, 4)
    return folder


def client(paths, number, keys=None, services=None, **changes):
    own = client_keys(keys, number) if keys else None
    services = toy_services() if services is None else services
    settings = {"grace_s": 0.0, "heartbeat_s": 0.2, "services": services} | changes
    return ExchangeClient(paths, number, ToyLearner(), shard, own, **settings)


def replying(paths, number, **changes):
    """A thread that waits for a request and has the client reply."""

    def work():
        until(paths.request.exists)
        client(paths, number, **changes).reply(Quiet())

    thread = threading.Thread(target=work)
    thread.start()
    return thread


class Quiet:
    """A heartbeat that nobody writes."""

    def tell(self, status):
        pass

    def turn(self, state):
        pass


def expected(*numbers):
    return {number: ToyEvaluator().answer(evaluation(), shard(number), lambda status: None) for number in numbers}


def reasons(paths):
    return [Rejection.model_validate_json(path.read_text()).reason for path in paths.rejected.glob("*_reason.json")]


def edited(**changes):
    def spoil(path):
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (edited(run_id="other"), "of run_id 'other'"),
        (edited(round=1), "of round 1"),
        (edited(kind="keys"), "of kind 'keys'"),
        (edited(step=1), "of step 1"),
        (edited(client_id=0), "of client_id 0"),
        (edited(request_sha256="0" * 64), "to another request"),
        (edited(reply={"client_id": 0, "loss": 1.0, "units": 1, "examples": 1}), "speaks for client 0"),
        (edited(reply={"client_id": 1, "loss": "1", "units": 1, "examples": 1}), "loss"),
        (edited(reply={"client_id": 1, "loss": 1.0, "units": 0, "examples": 1}), "units"),
        (edited(reply={}), "client_id"),
        (edited(error="both"), "a reply or an error"),
        (edited(more=1), "more"),
        (edited(version=3), "version"),
        (lambda path: path.write_bytes(b"\xff"), "reply_1_0_evaluate_0.json"),
        (lambda path: path.write_bytes(b" " * 70_000), "70,000 bytes"),
    ],
)
def test_a_reply_that_is_no_good_is_refused_with_its_reason(paths, transport, spoil, reason):
    with transport() as exchange:
        opened = OpenRequest.publish(evaluation(), (1,), exchange.rounds_of("run"))
        client(paths, 1).reply(Quiet())
        assert opened.read(1) == expected(1)[1]
        spoil(paths.reply(1, 0, "evaluate", 0))
        with pytest.raises(UpdateRejected, match=re.escape(reason)):
            opened.read(1)


def test_a_refused_reply_goes_to_the_quarantine_and_its_client_is_left_out(paths, transport):
    with transport(timeout_s=60.0) as exchange:
        OpenRequest.publish(evaluation(), (1,), exchange.rounds_of("run"))
        client(paths, 1).reply(Quiet())
        edited(reply={"client_id": 0, "loss": 1.0, "units": 1, "examples": 1})(paths.reply(1, 0, "evaluate", 0))
        found = asked(exchange, evaluation(), (1,))
    assert found == {1: ClientFailure(1, "refused: the reply speaks for client 0")}
    assert reasons(paths) == ["the reply speaks for client 0"]
    assert not paths.request.exists()


def test_a_client_whose_reply_was_refused_as_foreign_may_reply_again(paths, transport):
    with transport(timeout_s=60.0) as exchange:
        OpenRequest.publish(evaluation(), (1,), exchange.rounds_of("run"))
        client(paths, 1).reply(Quiet())
        path = paths.reply(1, 0, "evaluate", 0)
        foreign = json.dumps(json.loads(path.read_text()) | {"run_id": "other"})
        path.unlink()
        exchange.rounds_of("run").close_request()

        def work():
            until(paths.request.exists)
            write_text(path, foreign)
            until(lambda: reasons(paths))
            client(paths, 1).reply(Quiet())

        thread = threading.Thread(target=work)
        thread.start()
        assert asked(exchange, evaluation(), (1,)) == expected(1)
        thread.join()
    assert reasons(paths) == ["the reply is of run_id 'other', asked was 'run'"]


def test_with_keys_an_unsigned_reply_and_a_foreign_signature_do_not_count(paths, transport, keys):
    with transport(server_keys(keys)) as exchange:
        opened = OpenRequest.publish(evaluation(), (1, 2), exchange.rounds_of("run"))
        for number in (1, 2):
            client(paths, number, keys).reply(Quiet())
            assert opened.read(number) == expected(number)[number]
        theirs = json.loads(paths.reply(2, 0, "evaluate", 0).read_text())["signature"]
        for signature, reason in (("", "client 1 has not signed it"), (theirs, "the signature is not client 1's")):
            edited(signature=signature)(paths.reply(1, 0, "evaluate", 0))
            with pytest.raises(ForeignAnswer, match=reason):
                opened.read(1)


def test_a_client_believes_no_request_that_its_server_has_not_signed(paths, transport, keys, tmp_path):
    told = []
    with transport() as exchange:
        exchange.begin(RunIdentity("run"))
        OpenRequest.publish(evaluation(), (1,), exchange.rounds_of("run"))
        one = client(paths, 1, keys, listen=Listener(line=told.append))
        one.reply(Quiet())
    assert "the server has not signed it" in told[0]
    assert not paths.reply(1, 0, "evaluate", 0).exists()


def test_a_client_that_remembers_does_not_reply_to_an_older_run(paths, transport, keys, tmp_path):
    told, memory = [], Memory(tmp_path / "answered.json", "server")
    with transport(server_keys(keys)) as exchange:
        exchange.begin(RunIdentity("new", 200.0))
        request = dataclasses.replace(evaluation(), run_id="new")
        OpenRequest.publish(request, (1,), exchange.rounds_of("new"))
        client(paths, 1, keys, memory=memory).reply(Quiet())
        assert paths.reply(1, 0, "evaluate", 0).exists()
        exchange.begin(RunIdentity("old", 100.0))
        OpenRequest.publish(dataclasses.replace(request, run_id="old"), (1,), exchange.rounds_of("old"))
        client(paths, 1, keys, memory=memory, listen=Listener(line=told.append)).reply(Quiet())
    assert "created later" in told[0]


def test_a_restarted_server_takes_the_replies_that_are_there(paths, transport):
    """It was killed while it waited for another client: the request is the same to the byte."""
    with transport() as exchange:
        OpenRequest.publish(evaluation(), (0, 1), exchange.rounds_of("run"))
        written = paths.request.read_bytes()
        client(paths, 0).reply(Quiet())
    with transport() as exchange:
        exchange.begin(RunIdentity("run"))
        assert paths.request.read_bytes() == written
        thread = threading.Thread(target=lambda: client(paths, 1).reply(Quiet()))
        thread.start()
        assert asked(exchange, evaluation(), (0, 1)) == expected(0, 1)
        thread.join()


def test_a_new_run_takes_the_request_of_another_away(paths, transport):
    with transport() as exchange:
        OpenRequest.publish(evaluation(), (0,), exchange.rounds_of("run"))
        client(paths, 0).reply(Quiet())
        exchange.begin(RunIdentity("next"))
    assert not paths.request.exists()
    assert not paths.reply(0, 0, "evaluate", 0).exists()


def test_replies_to_an_earlier_request_of_the_same_name_are_no_answer(paths, transport):
    other = dataclasses.replace(evaluation(), adapter=adapter(9.0, 9.0, 9.0))
    with transport(timeout_s=0.01) as exchange:
        OpenRequest.publish(other, (1,), exchange.rounds_of("run"))
        client(paths, 1).reply(Quiet())
        found = asked(exchange, evaluation(), (1,))
    assert isinstance(found[1], ClientFailure)
    assert reasons(paths) == [], "the server tidies up after itself; nobody is to blame"


def test_peers_of_the_original_protocol_are_asked_to_fit_only(paths, transport):
    with transport(originals=(2,)) as exchange:
        thread = replying(paths, 1)
        found = asked(exchange, evaluation(), (1, 2))
        thread.join()
    assert isinstance(found[1], ClientEvaluation)
    assert found[2] == ClientFailure(2, "knows only the original files, which have no requests of kind 'evaluate'")


def test_a_client_without_the_service_says_so_at_once(paths, transport):
    with transport(timeout_s=60.0) as exchange:
        thread = replying(paths, 1, services=())
        found = asked(exchange, evaluation(), (1,))
        thread.join()
    assert found == {1: ClientFailure(1, "this client has no answer to requests of kind 'evaluate', step 0")}


def test_a_request_that_nobody_could_read_is_one_line(paths, transport):
    numbers = tuple((number, 10**15) for number in range(MAX_TASK_BYTES // 20))
    with transport() as exchange, pytest.raises(FederationError, match="at most 1,048,576 are read"):
        asked(exchange, AskMaskedCounts("run", 0, "sft", numbers), (0,))
    assert not paths.request.exists()


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_what_is_in_the_way_of_a_request_and_its_reply_is_moved(paths, transport, obstacle):
    with transport(timeout_s=60.0) as exchange:
        put(paths.request, obstacle)
        put(paths.reply(1, 0, "evaluate", 0), obstacle)
        thread = threading.Thread(target=run_until_done, args=(client(paths, 1),))
        thread.start()
        found = asked(exchange, evaluation(), (1,))
        finish(exchange)
        thread.join()
    assert found == expected(1)


def run_until_done(one):
    one.run()


def test_a_request_that_is_changed_while_it_is_open_is_written_again(paths, transport):
    with transport(timeout_s=60.0) as exchange:
        opened = OpenRequest.publish(evaluation(), (1,), exchange.rounds_of("run"))
        written = paths.request.read_bytes()
        adapter_file = next(paths.root.glob("adapter_*"))
        content = adapter_file.read_bytes()
        paths.request.write_text("{}")
        adapter_file.unlink()
        opened.uphold()
        assert (paths.request.read_bytes(), adapter_file.read_bytes()) == (written, content)


def test_adapters_of_requests_go_with_the_next_round(paths, transport):
    with transport(timeout_s=60.0) as exchange:
        thread = threading.Thread(target=run_until_done, args=(client(paths, 1),))
        thread.start()
        asked(exchange, evaluation(), (1,))
        assert list(paths.root.glob("adapter_*"))
        assert isinstance(answers(exchange, (1,), 1)[1], ClientUpdate)
        assert not list(paths.root.glob("adapter_*"))
        finish(exchange)
        thread.join()


def test_what_is_signed_has_the_kind_and_the_step_in_it(paths, transport, keys):
    with transport(server_keys(keys)) as exchange:
        opened = OpenRequest.publish(evaluation(), (1,), exchange.rounds_of("run"))
    public = server_keys(keys).public
    assert opened.file.is_of_server(public)
    for changes in ({"kind": "keys"}, {"step": 1}, {"round": 1}, {"run_id": "x"}, {"clients": (2,)}, {"terms": {}}):
        assert not RequestFile.is_of_server(opened.file.model_copy(update=changes), public)
