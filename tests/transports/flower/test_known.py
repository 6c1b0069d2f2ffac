"""Over a real grid: the server leaves out what a site has answered for, and a wrong guess costs one message."""

from __future__ import annotations

import dataclasses
import logging

import pytest
import torch
from flwr.app import Error, Message
from flwr.common.constant import HEARTBEAT_INTERVAL_INF, ErrorCode

from fccl.adapters.adapter import Adapter
from fccl.adapters.middle import middle_form, with_middles
from fccl.adapters.ranks import initial
from fccl.federation.state import FederationState
from fccl.messages import ClientFailure
from fccl.paths import ExchangePaths
from fccl.records.sites import SitesRecord
from fccl.specs.codecs import CodecSpec
from fccl.storage.reading import read_value
from fccl.testing import lora_toy
from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.testing.transport import answers
from fccl.transports.flower.client_app import app
from fccl.transports.flower.contents import Content
from fccl.transports.flower.known import Known
from fccl.transports.flower.parcel import Parcel
from fccl.transports.in_process import InProcessTransport
from tests.transports.exchange_tools import until
from tests.transports.flower.sites import require_left_out

ADAPTER = ".safetensors"


def listening(heard, answer=app):
    """The app, and the list of the parcels that come to it."""

    def hears(message, context):
        if message.metadata.message_type == "train":
            heard.append(Parcel.of_record(message.content, "server"))
        return answer(message, context)

    return hears


def carried(heard):
    """The adapters in each parcel: those that travelled, and those that did not."""
    return [
        (sorted(name for name in parcel.files if not name.endswith((".json", ".txt"))), sorted(parcel.held))
        for parcel in heard
    ]


def named(carried, number):
    """References are named by their hash: `reference` stands for it."""
    return [tuple([each.split("_")[0] for each in part] for part in one) for one in carried][number]


def test_a_reference_travels_in_the_first_round_of_its_phase_alone(sites):
    heard, fed = [], federation(2, rounds=3)
    sites.start(0, listening(heard)), sites.start(1)
    with sites.workers(0, 1), sites.transport() as transport:
        results = list(fed.run(START, transport))
        transport.finish(fed.run_id, 6, results[-1].state.adapter)
    alone = list(fed.run(START, InProcessTransport(ToyLearner(), shard)))
    assert results[-1].state.adapter.to_bytes() == alone[-1].state.adapter.to_bytes()
    whole = [["global"], []]
    expected = [*3 * [whole], [["global"], ["reference"]], *2 * [[["global"], ["reference"]]], whole]
    assert [list(named(carried(heard), number)) for number in range(7)] == expected


def test_the_bytes_in_the_record_are_those_that_travelled(sites):
    heard, fed = [], federation(2, rounds=2)
    for number in (0, 1):
        sites.start(number, listening(heard))
    with sites.workers(0, 1), sites.transport() as transport:
        list(fed.run(START, transport))
    said = read_value(sites.log, SitesRecord)
    assert sum(each.down for each in said.rounds) == sum(each.down for each in said.sites)
    assert sum(each.down for each in said.rounds) == sum(parcel.length for parcel in heard)


def rounds(transport, *numbers):
    for number in numbers:
        found = answers(transport, (0,), number)
        assert not isinstance(found[0], ClientFailure)


def va_federation(sites, transport, between, learner=None):
    """Six rounds, with something between those of VA."""
    fed = dataclasses.replace(federation(1, rounds=3), run_id="run")
    for result in fed.run(START, transport):
        if result.record.round >= 3:
            between()


def test_a_site_whose_files_are_gone_is_sent_all_of_them_and_trains_once(sites):
    heard, learner = [], ToyLearner()

    def empty():
        for path in sites.site(0).glob("*_*.*"):
            if not path.name.startswith(("status", "client")):
                path.unlink()

    sites.start(0, listening(heard))
    with sites.workers(0, learner=learner), sites.transport() as transport:
        va_federation(sites, transport, empty)
    assert learner.calls == [(number, 0) for number in range(6)]
    assert carried(heard[3:])[0][1], "nothing is missed in the first round: the files of both names are one"
    for asks, again in ((heard[4], heard[5]), (heard[6], heard[7])):
        assert list(asks.held) != []
        assert (list(again.held), set(again.files)) == ([], {*asks.files, *asks.held})


def test_a_new_node_is_sent_everything(sites):
    heard, nodes = [], []
    nodes.append(sites.start(0, listening([])))

    def renew():
        sites.nodes.stop(nodes.pop())
        nodes.append(sites.start(0, listening(heard)))

    with sites.workers(0), sites.transport() as transport:
        va_federation(sites, transport, renew)
    assert [parcel.answer for parcel in heard] == ["done_0_4.flag", "done_0_5.flag"]
    assert [list(parcel.held) for parcel in heard] == [[], []]


def test_a_node_that_was_away_between_two_rounds_is_sent_everything(sites):
    """It is the same node, with its key, and may have been started anew meanwhile."""
    heard = []
    node = sites.start(0, listening(heard))

    def online():
        return sites.log.exists() and read_value(sites.log, SitesRecord).sites[0].online

    def away():
        until(online)
        sites.nodes.state.deactivate_node(node)
        until(lambda: not online())
        sites.nodes.state.activate_node(node, HEARTBEAT_INTERVAL_INF)

    with sites.workers(0), sites.transport() as transport:
        va_federation(sites, transport, away)
    assert [list(parcel.held) for parcel in heard[4:]] == [[], []]


def test_a_server_that_starts_again_assumes_nothing(sites):
    heard = []
    sites.start(0, listening(heard))
    with sites.workers(0):
        for numbers in ((0, 1), (2, 3)):
            with sites.transport() as transport:
                rounds(transport, *numbers)
    left_out = [list(parcel.held) for parcel in heard]  # all rounds have one adapter
    assert left_out == [[], ["global_round_1.safetensors"], [], ["global_round_3.safetensors"]]


def test_a_node_that_was_away_is_known_no_more(tmp_path):
    paths = ExchangePaths(tmp_path)
    known, files = Known(paths), {"global_round_0.safetensors": Content.of(b"numbers")}
    for client_id in (0, 1):
        known.answered(client_id, 10 + client_id, files)
    known.only({0: 10, 1: 11})
    assert (known.of(0, 10), known.of(1, 11), known.of(1, 10)) == (files, files, {})
    known.only({0: 10})
    known.only({0: 10, 1: 11})
    assert (known.of(0, 10), known.of(1, 11)) == (files, {})


def missing_always(message, context):
    """A site that says of every adapter that it has it not."""
    reply = app(message, context)
    if message.metadata.message_type == "query":
        return reply
    names = [name for name in Parcel.of_record(message.content, "server").contents if name.endswith(ADAPTER)]
    return Message(Parcel(missing=tuple(names)).record(), reply_to=message)


def leaving_out(message, context):
    """A site that leaves files of its answer out."""
    reply = app(message, context)
    if message.metadata.message_type == "query":
        return reply
    found = Parcel.of_record(reply.content)
    name = next(name for name in found.files if name.endswith(ADAPTER))
    files = {text: each for text, each in found.files.items() if text != name}
    return Message(Parcel(files, held={name: found.contents[name]}).record(), reply_to=message)


def older(message, context):
    """A site of an earlier version."""
    reply = app(message, context)
    if message.metadata.message_type == "train":
        reply.content.config_records["parcel"]["version"] = 1
    return reply


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (missing_always, "its site misses files that it was sent: ['global_round_0.safetensors']"),
        (leaving_out, "the answer leaves out ['client_1_round_0.safetensors']"),
        (older, "the site's message is a parcel of version 1, not 2: the site's FCCL is older"),
    ],
)
def test_a_site_that_answers_otherwise_is_left_out_with_the_reason(sites, answer, reason):
    require_left_out(sites, answer, reason)
    assert sites.nodes.handled[max(sites.nodes.handled)] < 8


def test_a_site_says_in_its_own_log_too_that_the_server_is_older(sites, monkeypatch):
    def from_older(message, context):
        if message.metadata.message_type == "train":
            message.content.config_records["parcel"]["version"] = 1
        return app(message, context)

    reason = "the server's message is a parcel of version 1, not 2: the server's FCCL is older"
    said, handler = [], logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: said.append(record.getMessage()))
    monkeypatch.setattr(logging.getLogger("flwr"), "handlers", [handler])
    sites.start(0), sites.start(1, from_older)
    with sites.workers(0, 1), sites.transport() as transport:
        found = answers(transport, (0, 1))
    assert found[1].reason.startswith(f"its site has failed 3 times: {reason}")
    assert [reason in line for line in said if "parcel" in line] == 3 * [True]


def test_a_site_that_misses_what_was_left_out_in_every_round_costs_a_message_in_each(sites):
    """Whatever it has: it says so once, and is then sent all."""
    heard = []

    def forgetful(message, context):
        if message.metadata.message_type == "train":
            parcel = Parcel.of_record(message.content, "server")
            heard.append(parcel)
            if parcel.held:
                return Message(Parcel(missing=tuple(parcel.held)).record(), reply_to=message)
        return app(message, context)

    sites.start(0, forgetful)
    with sites.workers(0), sites.transport() as transport:
        va_federation(sites, transport, lambda: None)
    assert [parcel.answer for parcel in heard] == [f"done_0_{number}.flag" for number in (0, 1, 2, 3, 3, 4, 4, 5, 5)]


def over_flower(sites, fed, start):
    """The final adapter of a run whose sites are sent its end, and the parcels to the first of them."""
    heard, learner = [], lora_toy.LoraLearner()
    sites.start(0, listening(heard)), sites.start(1)
    with sites.workers(0, 1, learner=learner), sites.transport() as transport:
        *_, last = fed.run(start, transport)
        transport.finish(fed.run_id, fed.plan.total_rounds, last.state.adapter)
    return last.state.adapter.to_bytes(), heard


def in_codec(name, codec):
    """A federation whose adapters travel so, under `LORA_AGGREGATION=name`."""
    fed = lora_toy.lora_federation(name, clients=2, rounds=3)
    train = {phase: spec.model_copy(update={"codec": CodecSpec(name=codec)}) for phase, spec in fed.train.items()}
    return dataclasses.replace(fed, train=train)


def of_process(fed, start):
    *_, last = fed.run(start, InProcessTransport(lora_toy.LoraLearner(), shard))
    return last.state.adapter.to_bytes()


CODED = [f"global_round_{number}.coded" for number in range(6)]
END = ["global_round_6.safetensors"]


@pytest.mark.parametrize("codec", ["int4", "int8", "fp16", "int3", "topk"])
def test_under_a_codec_every_adapter_but_the_last_travels_coded(sites, codec):
    """The first is drawn at the site, that of the first VA round is its reference too, and the last is whole."""
    fed = in_codec("factors", codec)
    start = FederationState(0, initial(lora_toy.START.adapter.form, fed.plan.seed))
    final, heard = over_flower(sites, fed, start)
    assert final == of_process(fed, start)
    assert [files for files, _ in carried(heard)] == [*([name] for name in CODED), END]


@pytest.mark.parametrize("codec", ["fp32", "int8"])
def test_factors_around_middle_matrices_travel_in_the_first_round_and_the_last(sites, codec):
    form = with_middles(lora_toy.factors(0).form)
    zeros = {name: torch.zeros(shape) for name, shape in middle_form(form).shapes.items()}
    start, fed = FederationState(0, Adapter({**lora_toy.factors(0).tensors, **zeros})), in_codec("fed_sb", codec)
    final, heard = over_flower(sites, fed, start)
    assert final == of_process(fed, start)
    first = ["global_round_0.safetensors"]
    assert [files for files, _ in carried(heard)] == [first, *([name] for name in CODED[1:]), END]


def crashed(message):
    """What Flower answers for a process that was killed."""
    return Message(Error(ErrorCode.CLIENT_APP_CRASHED, "ClientApp stopped responding."), reply_to=message)


def restarted(message):
    """A SuperNode that went down with its process has forgotten the message."""


@pytest.mark.parametrize("ends", [crashed, restarted])
def test_a_site_whose_process_dies_in_decoding_is_sent_whole_files_and_trains_in_every_round(sites, ends):
    """Of memory, or of its processor: no exception says so, and the next process would die too."""
    heard, sites.lost_s = [], 0.3

    def dying(message, context):
        if message.metadata.message_type == "train":
            heard.append(Parcel.of_record(message.content, "server"))
            if any(name.endswith(".coded") for name in heard[-1].files) and len(heard) < 20:
                return ends(message)
        return app(message, context)

    fed = in_codec("factors", "int8")
    start = FederationState(0, initial(lora_toy.START.adapter.form, fed.plan.seed))
    sites.start(0, dying), sites.start(1)
    with sites.workers(0, 1, learner=lora_toy.LoraLearner()), sites.transport() as transport:
        results = list(fed.run(start, transport))
    assert [result.record.clients for result in results] == 6 * [(0, 1)]
    assert results[-1].state.adapter.to_bytes() == of_process(fed, start)
    rounds = [[f"global_round_{number}.coded", f"global_round_{number}.safetensors"] for number in range(6)]
    sent = [name for parcel in heard for name in parcel.files if name.startswith("global_")]
    assert sent == [name for names in rounds for name in names]
