"""Answers that end the server while it reads them, and files that would take all memory if anybody believed them."""

import io
import os
import pickle
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path

import pytest
import torch

from fccl.errors import StorageError
from fccl.keys import client_keys, create_keys, server_keys
from fccl.messages import ClientFailure, ClientUpdate
from fccl.paths import KeyPaths
from fccl.testing.toy import ToyLearner, shard
from fccl.testing.transport import task
from fccl.transports.exchange.answers import AnswerReader
from fccl.transports.exchange.begun import BegunReadings
from fccl.transports.exchange.client import ExchangeClient
from fccl.transports.exchange.wire import AdapterFile
from fccl.transports.protocol import Listener
from tests.transports.exchange_tools import clients, finish, fit

ROOT = Path(__file__).resolve().parents[3]


class Killed(BaseException):
    """Stands for the process's end: nothing in the program catches it."""


def commit(exchange, paths, client_id):
    opened = exchange.open(task(), (0, 1))
    ExchangeClient(paths, client_id, ToyLearner(), shard).commit(
        opened, ToyLearner().fit(task(), shard(client_id), lambda status: None)
    )


def end(paths, transport, monkeypatch, error=Killed, answers=(1,), asked=(1,)):
    """A server that ends while it reads client 1's answer."""
    real = AnswerReader.read

    def read(reader, number):
        if number == 1:
            raise error("while reading")
        return real(reader, number)

    with transport() as exchange, monkeypatch.context() as patch:
        patch.setattr(AnswerReader, "read", read)
        for client_id in answers:
            commit(exchange, paths, client_id)
        with pytest.raises(error):
            fit(exchange, asked)


def test_an_answer_that_ends_the_server_is_not_read_again_and_its_client_answers_anew(paths, transport, monkeypatch):
    end(paths, transport, monkeypatch, answers=(0, 1), asked=(0, 1))
    with transport(timeout_s=60.0) as exchange, clients(paths, {0: ToyLearner(), 1: ToyLearner()}) as (first, second):
        found = fit(exchange)
        finish(exchange)
    assert all(isinstance(answer, ClientUpdate) for answer in found.values())
    assert [(each.client_id, each.reason) for each in exchange.quarantine.rejections] == [
        (1, "the server ended while it read this answer")
    ]
    assert second.learner.calls == [(0, 1)]
    assert first.learner.calls == [], "the other's answer was good, and counts"


def test_a_client_whose_answers_end_the_server_three_times_is_passed_over(paths, transport, monkeypatch):
    for _ in range(3):
        end(paths, transport, monkeypatch)
    with transport(timeout_s=0.01) as exchange:
        assert "the server ended while it read this answer" in fit(exchange, (1,))[1].reason
        commit(exchange, paths, 1)
        assert isinstance(fit(exchange, (1,))[1], ClientFailure)
    with transport(timeout_s=60.0) as exchange, clients(paths, {0: ToyLearner(), 1: ToyLearner()}):
        assert all(isinstance(answer, ClientUpdate) for answer in fit(exchange, number=1).values()), (
            "of this round alone"
        )
        finish(exchange)


@pytest.mark.parametrize("error", [KeyboardInterrupt, StorageError])
def test_an_end_that_is_not_the_answers_fault_costs_it_nothing(paths, transport, monkeypatch, error):
    end(paths, transport, monkeypatch, error)
    with transport() as exchange:
        assert isinstance(fit(exchange, (1,))[1], ClientUpdate)
    assert exchange.quarantine.rejections == []


@pytest.mark.parametrize("error", [MemoryError, RecursionError, RuntimeError])
def test_an_error_that_nobody_expected_is_the_answers_fault(paths, transport, monkeypatch, error):
    end(paths, transport, monkeypatch, error)
    with transport(timeout_s=0.01) as exchange:
        assert "the server ended while it read this answer" in fit(exchange, (1,))[1].reason


def test_notes_of_other_rounds_and_damaged_ones_say_nothing(paths, tmp_path):
    begun, flag = BegunReadings(tmp_path, paths), paths.flag(1, 0).name
    assert begun.unended(flag) == []
    with pytest.raises(Killed), begun.reading(flag, (5, 6, 0)):
        raise Killed
    assert begun.unended(flag) == [(5, 6, 0)]
    assert begun.unended(paths.flag(1, 1).name) == begun.unended(paths.reply(1, 0, "evaluate", 0).name) == []
    (tmp_path / flag).write_text("5 6 0\nx")
    assert begun.unended(flag) == [(5, 6, 0)]
    with begun.reading(flag, (7, 8, 0)):
        pass
    assert begun.unended(flag) == []


# --- memory

PROGRAM = """
    import resource, sys, warnings
    from pathlib import Path
    import torch
    from fccl.adapters.adapter import load_adapter
    from fccl.errors import AdapterError
    from fccl.transports.exchange.client import ExchangeClient
    from fccl.messages import ClientFailure, ClientUpdate
    from fccl.paths import ExchangePaths
    from fccl.transports.exchange.server import ExchangeTransport
    from fccl.testing.processes import exchange_spec
    from fccl.testing.toy import ToyLearner, adapter, shard
    from fccl.testing.transport import task
    from tests.transports.exchange_tools import named, replace
    from tests.transports.exchange.test_server_deaths import BOMBS, reads_nothing

    folder = Path(sys.argv[1])
    paths = ExchangePaths(folder / "exchange")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, used + 2**29))
    for bomb in BOMBS:
        with ExchangeTransport(paths, exchange_spec(4, timeout_s=0.01), folder / "received") as exchange:
            opened = exchange.open(task(), (0, 1))
            for number in (0, 1):
                update = ToyLearner().fit(task(), shard(number), lambda status: None)
                ExchangeClient(paths, number, ToyLearner(), shard).commit(opened, update)
            replace("update", bomb)(paths, opened)
            named("adapter", bomb)(paths, opened)
            found = {answer.client_id: answer for answer in exchange.ask(task(), (0, 1))}
            assert isinstance(found[0], ClientUpdate), found[0]
            assert "is not a safetensors file" in found[1].reason, found[1]
            exchange.rounds_of("run").take_back(0, 0)
        reads_nothing(paths, "global_adapter", bomb)
        reads_nothing(paths, "reference", bomb)
        for name in ("global_sft.safetensors", "client_1_va.safetensors", "old.pt"):
            (folder / name).write_bytes(bomb)
            try:
                load_adapter((folder / name).with_suffix(".safetensors"))
                raise SystemExit("read")
            except AdapterError as error:
                assert str(folder) in str(error)
    print("done")
"""


class Bomb:
    def __init__(self, *called):
        self.called = called

    def __reduce__(self):
        return self.called


def torch_file(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


SIX_GB = Bomb(bytearray, (6 * 2**30,))
BOMBS = [
    torch_file(SIX_GB),
    torch_file({"w": Bomb(torch.zeros, (2**31,))}),
    torch_file(Bomb(bytearray, (SIX_GB,))),
    torch_file({"w": torch.zeros(1).expand(2**33)}),
    pickle.dumps(SIX_GB),
]


def reads_nothing(paths, kind, content):
    """A client that is told to read this as a server's adapter, by a server that has named it rightly."""
    file, client, told = AdapterFile.of(content), ExchangeClient(paths, 0, ToyLearner(), shard), []
    client.listen = Listener(line=told.append)
    path = paths.global_adapter(0) if kind == "global_adapter" else paths.reference(file.sha256)
    path.write_bytes(content)
    opened = client.newest()
    phase = (
        {"phase": "va", "work": opened.work.model_copy(update={"reference": file})}
        if kind == "reference"
        else {"adapter": file}
    )
    assert client.begin(opened.model_copy(update=phase), opened.model_copy(update=phase).work, None) is None
    assert "cannot be begun" in told[-1]
    assert "is not a safetensors file" in told[-1] or kind == "reference"


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is limited as Linux does")
def test_a_file_of_a_thousand_bytes_takes_no_memory_wherever_it_lies(tmp_path):
    """As an update, a global adapter, a reference, an adapter of LOG_DIR and one of an earlier version, in half a
    gigabyte.
    """
    assert all(len(bomb) < 2000 for bomb in BOMBS)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-2000:]


@pytest.mark.parametrize("signed", [True, False])
def test_a_client_compares_the_length_before_it_reads_a_global_adapter(paths, transport, tmp_path, signed):
    keys = KeyPaths(tmp_path / "keys")
    create_keys(keys, 2)
    told = []
    with transport(server_keys(keys) if signed else None) as exchange:
        opened = exchange.open(task(), (0,))
        client = ExchangeClient(
            paths, 0, ToyLearner(), shard, client_keys(keys, 0) if signed else None, listen=Listener(line=told.append)
        )
        for size in (0, opened.adapter.length + 1, 2**31, 2**40):
            os.truncate(paths.global_adapter(0), size)
            tracemalloc.start()
            assert client.begin(client.newest(), opened.work, None) is None
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 2**20
            assert f"global_round_0.safetensors has {size:,} bytes" in told[-1]
