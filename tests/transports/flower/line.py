"""A server's directory and a site's, and what is carried between them, without Flower's processes and threads.

The courier's part is played by a loop of a few lines: it sends until the site has laid what was sent.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import pytest
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto

from fccl.adapters.coded import CodedAdapter
from fccl.adapters.ranks import initial
from fccl.adapters.short import drawn
from fccl.paths import ExchangePaths
from fccl.specs.codecs import CodecSpec
from fccl.testing.lora_toy import factors
from fccl.testing.processes import exchange_spec
from fccl.testing.toy import TRAIN
from fccl.testing.transport import evaluation, task
from fccl.transports.exchange.requests import OpenRequest
from fccl.transports.exchange.server import ExchangeTransport
from fccl.transports.flower.contents import stays
from fccl.transports.flower.errand import Errand
from fccl.transports.flower.known import Known
from fccl.transports.flower.parcel import Parcel
from fccl.transports.flower.site import OF_SERVER, Site
from tests.federation.test_run_kills import Killed, Kills

CODEC, SPEC, NODE = CodecSpec(name="int8"), exchange_spec(1), 7
TRAINED = TRAIN.model_copy(update={"codec": CODEC})


class Line:
    """A server's directory and a site's, and what is carried from one to the other."""

    adapters: ClassVar = [factors(seed) for seed in range(3)]

    def __init__(self, folder, transport, kills):
        self.server, self.transport, self.kills = ExchangePaths(folder / "server"), transport, kills
        self.site = Site(ExchangePaths(folder / "site"), 0)
        self.known, self.number, self.now = Known(self.server), 0, initial(factors(0).form, 5)
        self.sent, self.messages = [], Counter()

    def round(self, which, how, phase="sft", reference=None):
        """Open the next round, with the adapter's change as `how` says, and return its errand."""
        before, self.now, coded = self.now, self.adapters[which], None
        if how == "coded":
            made = CodedAdapter.of(self.now, before, CODEC, seed=1)
            self.now, coded = made.load(), made.content
        elif how == "drawn":
            self.now = initial(self.now.form, which)
            coded = drawn(self.now, which)
        elif how == "spoilt":
            coded = CodedAdapter.of(self.now, self.adapters[which - 1], CODEC, seed=1).content
        said = dataclasses.replace(
            task(self.number), phase=phase, adapter=self.now, reference=reference, train=TRAINED, coded=coded
        )
        self.number += 1
        self.transport.open(said, (0,))
        return Errand.of(self.server, SPEC, said, (0,))

    def aligned(self, which, how):
        """A VA round: its reference stays the same."""
        return self.round(which, how, "va", self.adapters[0])

    def request(self, which, how):
        """A request between two rounds, for an adapter of these or the one of the last round."""
        said = dataclasses.replace(
            evaluation(self.number), adapter=self.adapters[which] if how == "whole" else self.now
        )
        OpenRequest.publish(said, (0,), self.transport.rounds_of("run"))
        return Errand.of(self.server, SPEC, said, (0,))

    def done(self, which, how):
        """The end, after which this line goes on all the same."""
        self.now = self.adapters[which]
        self.transport.finish("run", self.number, self.now)
        self.number += 1
        return Errand(self.server, SPEC, "run", self.number - 1, "sft", "done", 0, (0,))

    def carry(self, errand, kill_at=None):
        """Send the errand until the site has laid it; it dies at one of its writes in the first message."""
        self.messages.clear()
        while not self.messages["laid"]:
            parcel = errand.parcel(0, self.known.of(0, NODE))
            assert not self.messages["missing"] or not parcel.held, "nothing is left out twice"
            self.messages[self.arrives(errand, parcel, kill_at)] += 1
            kill_at = None
            assert sum(self.messages.values()) <= 3
        self.sent.append(parcel)
        self.same(errand)

    def arrives(self, errand, parcel, kill_at=None):
        """One message at the site, and what the server makes of its answer."""
        parcel = Parcel.of_record(recorddict_from_proto(recorddict_to_proto(parcel.record())), "server")
        self.kills.begin(-1 if kill_at is None else kill_at)
        try:
            missing = self.site.lay(parcel.files, parcel.answer, parcel.refused, parcel.held)
        except Killed:
            return "killed"
        finally:
            self.kills.begin()
        if missing:
            self.known.forget(0)
            errand.whole.add(0)
            return "missing"
        self.known.answered(0, NODE, parcel.contents)
        return "laid"

    def same(self, errand):
        """The site has the files of the errand to the byte, and of others those alone that commit nothing."""
        errand.whole.add(0)
        wanted = errand.parcel(0).files
        assert {text: (self.site.paths.root / text).read_bytes() for text in wanted} == wanted
        for path in self.site.paths.root.iterdir():
            name = self.site.paths.name(path.name)
            if name is not None and name.kind in OF_SERVER and path.name not in wanted:
                assert stays(self.site.paths, name, wanted)

    def files(self):
        """The server's files that lie at the site."""
        return sorted(path for path in self.site.paths.root.glob("*") if path.is_file())

    def empty(self):
        for path in self.files():
            path.unlink()

    def corrupt(self):
        """Every file there keeps its length."""
        for path in self.files():
            path.write_bytes(bytes(255 - each for each in path.read_bytes()))

    def cut(self):
        for path in self.files():
            path.write_bytes(path.read_bytes()[:-1])

    def swap(self):
        """Each adapter has the name of another one."""
        adapters = [path for path in self.files() if path.suffix == ".safetensors"]
        contents = [path.read_bytes() for path in adapters]
        for path, content in zip(adapters, contents[1:] + contents[:1], strict=True):
            path.write_bytes(content)

    def resumed(self):
        self.known.forget(0)

    def again(self):
        """An old message comes once more, later than those after it; its answer is taken."""
        if self.sent:
            self.arrives(Errand(self.server, SPEC, "run", 0, "sft", "fit", 0, (0,)), self.sent[0])

    def nothing(self):
        """All goes well."""


@contextmanager
def line():
    """A new one, whose site can be killed."""
    with TemporaryDirectory() as text, pytest.MonkeyPatch.context() as patch:
        folder = Path(text)
        with ExchangeTransport(ExchangePaths(folder / "server"), SPEC, folder / "received") as transport:
            yield Line(folder, transport, Kills(patch))
