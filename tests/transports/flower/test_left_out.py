"""Files that a site has do not travel again, and what it has not is asked for before anything is touched."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest

from fccl.adapters import short
from fccl.adapters.tensor_files import header_of
from fccl.errors import UpdateRejected
from fccl.storage.reading import identity
from fccl.transports.flower.contents import MOST_DRAWN_BYTES, Content
from tests.transports.flower.line import NODE, line


@pytest.fixture
def way():
    with line() as made:
        yield made


def packed(way, errand):
    """The names of the files that would travel to the site now, and of those that would not."""
    parcel = errand.parcel(0, way.known.of(0, NODE))
    return list(parcel.files), list(parcel.held)


def laid(way, errand):
    """The same, once they are laid by one message."""
    found = packed(way, errand)
    way.carry(errand)
    assert way.messages == {"laid": 1}
    return found


def reference(way):
    return next(path.name for path in way.server.root.glob("reference_*"))


def test_a_reference_travels_once_in_a_phase(way):
    laid(way, way.round(1, "whole"))
    first = way.aligned(1, "whole")
    travels, stay = laid(way, first)
    assert reference(way) in travels
    assert stay == ["global_round_1.safetensors"], "the adapter is the one of the round before"
    for which in (2, 1, 2):
        assert laid(way, way.aligned(which, "whole"))[1] == [reference(way)]


def test_a_phase_that_begins_with_its_reference_carries_it_once(way):
    """The reference is the adapter of the phase's first round: one content in two files."""
    travels, stay = laid(way, way.aligned(0, "whole"))
    assert (travels[0], stay) == ("global_round_0.safetensors", [reference(way)])
    travels, stay = laid(way, way.aligned(1, "whole"))
    assert (travels[0], stay) == ("global_round_1.safetensors", [reference(way)])


def test_a_request_for_an_adapter_that_is_there_carries_none_and_leaves_it_there(way):
    laid(way, way.aligned(1, "whole"))
    travels, stay = laid(way, way.request(0, "same"))
    assert travels == ["request.json"]
    assert len(stay) == 1
    assert way.site.paths.global_adapter(0).exists()
    travels, stay = laid(way, way.aligned(2, "coded"))
    assert travels == ["global_round_1.coded", "task_round_1.json", "phase_1.txt"]


def test_an_adapter_that_a_request_has_brought_is_the_next_round_s(way):
    laid(way, way.round(0, "whole"))
    assert len(laid(way, way.request(1, "whole"))[0]) == 2
    assert laid(way, way.round(1, "whole"))[1] == ["global_round_1.safetensors"]


def test_a_coded_adapter_travels_coded_and_lies_there_whole(way):
    laid(way, way.round(0, "whole"))
    travels, stay = laid(way, way.round(1, "coded"))
    assert (travels[0], stay) == ("global_round_1.coded", ["global_round_1.safetensors"])
    assert not way.site.paths.coded_global(1).exists(), "the worker reads the whole one"


def test_a_drawn_adapter_needs_no_other(way):
    travels, _ = laid(way, way.round(0, "drawn"))
    assert travels[0] == "global_round_0.coded"


@pytest.mark.parametrize("missed", ["nothing laid", "another round", "a new node"])
def test_a_coded_adapter_travels_whole_to_a_site_without_its_base(way, missed):
    if missed != "nothing laid":
        laid(way, way.round(0, "whole"))
    if missed == "another round":
        way.round(2, "coded")
    errand = way.round(1, "coded")
    node = NODE + 1 if missed == "a new node" else NODE
    assert not errand.parcel(0, way.known.of(0, node)).held


def test_a_wrong_change_is_asked_for_whole_and_nothing_is_touched(way):
    laid(way, way.round(0, "whole"))
    errand = way.round(1, "spoilt")
    parcel = errand.parcel(0, way.known.of(0, NODE))
    before = {path: identity(path) for path in way.site.paths.root.iterdir()}
    assert way.site.lay(parcel.files, parcel.answer, (), parcel.held) == ("global_round_1.safetensors",)
    assert {path: identity(path) for path in way.site.paths.root.iterdir()} == before
    way.carry(errand)
    assert way.messages == {"missing": 1, "laid": 1}


def link(path, to):
    path.unlink()
    path.symlink_to(to)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path, to: path.unlink(),
        lambda path, to: path.write_bytes(bytes(path.stat().st_size)),
        lambda path, to: path.write_bytes(path.read_bytes()[:-1]),
        lambda path, to: (path.unlink(), path.mkdir()),
        lambda path, to: (path.unlink(), os.mkfifo(path)),
        link,
    ],
    ids=["gone", "other bytes", "cut", "a folder", "a pipe", "a link"],
)
def test_a_held_file_that_is_none_any_more_is_missing(way, tmp_path, spoil):
    laid(way, way.aligned(1, "whole"))
    path = way.site.paths.root / reference(way)
    (tmp_path / "outside").write_bytes(path.read_bytes())
    spoil(path, tmp_path / "outside")
    parcel = way.aligned(2, "whole").parcel(0, way.known.of(0, NODE))
    assert way.site.lay(parcel.files, parcel.answer, (), parcel.held) == (path.name,)


@pytest.mark.parametrize(
    "name", ["task_round_0.json", "phase_0.txt", "global_round_0.coded", "global_round_0.pt", "done_0_0.flag", "../x"]
)
def test_nothing_but_an_adapter_of_the_server_s_may_be_left_out(way, name):
    with pytest.raises(UpdateRejected, match="is not a file that may be left out"):
        way.site.lay({}, held={name: Content.of(b"x")})
    assert not way.site.paths.root.exists()


def test_a_length_that_no_file_has_takes_no_memory(way):
    laid(way, way.round(0, "whole"))
    held = {"global_round_0.safetensors": Content(2**62, "0" * 64), "global_round_1.safetensors": Content(0, "")}
    assert way.site.lay({}, held=held) == tuple(held)


def test_requests_that_bring_files_of_rounds_do_not_fill_the_disk(way):
    """A hostile server's: those of one message stay, whatever came before."""
    for number in range(5):
        files = {f"global_round_{number}.safetensors": bytes(100), "request.json": b"{}"}
        assert way.site.lay(files) == ()
        assert {path.name for path in way.files()} == set(files)


def asking(way, coded, content):
    """A message whose adapter is to be made of these bytes."""
    way.round(0, "whole")
    files = {way.server.coded_global(0).name: coded}
    files |= {path.name: path.read_bytes() for path in (way.server.task(0), way.server.phase(0))}
    return way.site.lay(files, held={way.server.global_adapter(0).name: content})


def test_an_adapter_of_a_seed_is_not_made_beyond_its_bound(way, monkeypatch):
    """A message of some hundred bytes would take gigabytes."""
    made = []
    monkeypatch.setattr(short, "initial", lambda form, seed: made.append(form))
    header = header_of({"m.lora_A.weight": (2**13, 2**13 + 1)})
    content = Content(len(header) + 4 * 2**13 * (2**13 + 1), "0" * 64)
    assert content.length > MOST_DRAWN_BYTES
    assert asking(way, b"fccl new" + bytes(8) + header, content) == ("global_round_0.safetensors",)
    assert not made


def test_one_message_has_one_adapter_made(way):
    """A hostile server's could name many rounds, each with a seed of its own and an adapter of the most bytes."""
    files, held = {}, {}
    for number in (0, 1):
        way.round(number, "drawn")
        whole = way.server.global_adapter(number)
        held[whole.name] = Content.of(whole.read_bytes())
        files |= {path.name: path.read_bytes() for path in (way.server.coded_global(number), way.server.task(number))}
        alone = {name: each for name, each in files.items() if f"_{number}." in name}
        assert way.site.lay(alone, held={whole.name: held[whole.name]}) == ()
        way.empty()
    assert way.site.lay(files, held=held) == tuple(held)


@pytest.mark.parametrize("error", [ImportError("no torch here"), RuntimeError(), MemoryError(), RecursionError()])
def test_whatever_goes_wrong_in_decoding_the_whole_file_is_asked_for(way, monkeypatch, error):
    def raising(*arguments):
        raise error

    monkeypatch.setattr("fccl.transports.flower.made.read_short", raising)
    way.carry(way.round(0, "drawn"))
    assert way.messages == {"missing": 1, "laid": 1}


@pytest.mark.parametrize(
    "coded", [b"", b"fccl chg", b"fccl new", b"fccl mid" + bytes(70), b"fccl chg" + b"\xff" * 90, b"x" * 200]
)
def test_noise_in_the_place_of_few_bytes_is_asked_for_whole(way, coded):
    laid(way, way.round(0, "whole"))
    files = way.round(1, "coded").parcel(0, way.known.of(0, NODE))
    changed = dataclasses.replace(files, files={**files.files, "global_round_1.coded": coded})
    assert way.site.lay(changed.files, held=changed.held) == ("global_round_1.safetensors",)


def test_torch_is_loaded_where_few_bytes_are_to_be_decoded_and_nowhere_else(way, tmp_path):
    code = (
        "import sys; from pathlib import Path; from fccl.paths import ExchangePaths\n"
        "from fccl.transports.flower.site import Site; from fccl.transports.flower.contents import Content\n"
        "folder, site = Path(sys.argv[1]), Site(ExchangePaths(Path(sys.argv[2])), 0)\n"
        "def files(number, *names):\n"
        "    return {name: (folder / name).read_bytes() for name in (*names, f'task_round_{number}.json')}\n"
        "def held(name):\n"
        "    return {name: Content.of((folder / name).read_bytes())}\n"
        "first, second = 'global_round_0.safetensors', 'global_round_1.safetensors'\n"
        "print(site.lay(files(0, first)), site.lay(files(0), held=held(first)), 'torch' in sys.modules)\n"
        "print(site.lay(files(1, 'global_round_1.coded'), held=held(second)), 'torch' in sys.modules)\n"
        "assert (site.paths.root / second).read_bytes() == (folder / second).read_bytes()\n"
    )
    way.round(0, "whole"), way.round(1, "coded")
    command = [sys.executable, "-c", code, str(way.server.root), str(tmp_path / "site")]
    assert subprocess.check_output(command, text=True) == "() () False\n() True\n"
