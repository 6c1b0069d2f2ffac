import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.paths import ExchangeName, ExchangePaths, is_usable


@pytest.fixture
def paths(tmp_path):
    return ExchangePaths(tmp_path)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("phase_0.txt", ExchangeName("phase", round=0)),
        ("global_round_12.safetensors", ExchangeName("global_adapter", round=12)),
        ("task_round_3.json", ExchangeName("task", round=3)),
        ("client_2_round_10.safetensors", ExchangeName("update", round=10, client=2)),
        ("contrib_client_2_round_10.json", ExchangeName("contribution", round=10, client=2)),
        ("done_2_10.flag", ExchangeName("flag", round=10, client=2)),
        ("status_7.json", ExchangeName("status", client=7)),
    ],
)
def test_names_both_ways(paths, text, name):
    assert paths.name(text) == name
    numbers = [number for number in (name.client, name.round) if number is not None]
    assert getattr(paths, name.kind)(*numbers) == paths.root / text


def test_names_of_requests_and_replies_both_ways(paths):
    assert paths.name(paths.request.name) == ExchangeName("request")
    assert paths.name(paths.adapter("0123456789abcdef" * 4).name) == ExchangeName("adapter")
    assert paths.name(paths.reply(2, 10, "evaluate", 3).name) == ExchangeName("reply", round=10, client=2)
    for text in ("reply_1_2_Keys_0.json", "reply_1_2__0.json", "reply_1_2_keys_100.json", "reply_1_2_keys_0.json\n"):
        assert paths.name(text) is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("global_round_12.pt", ExchangeName("global_adapter", round=12)),
        ("client_2_round_10.pt", ExchangeName("update", round=10, client=2)),
        ("control_client_2_round_10.pt", ExchangeName("control", round=10, client=2)),
        ("reference_0123456789abcdef.pt", ExchangeName("reference")),
        ("correction_0123456789abcdef.pt", ExchangeName("correction")),
    ],
)
def test_the_names_of_earlier_versions_and_original_peers_are_known(paths, text, name):
    """So that they are shown for what they are, and cleared away."""
    assert paths.name(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "client_../../x_round_0.safetensors",
        "client_01_round_0.safetensors",
        "client_-1_round_0.safetensors",
        "client_1_round_0.safetensors.tmp",
        "client_1_round_0.safetensors.pt",
        "client_1_round_0xsafetensors",
        "client_1_round_0",
        "phase_1.txt\n",
        "phase_٣.txt",
        "",
        "_",
        "x",
    ],
)
def test_what_is_no_name(paths, text):
    assert paths.name(text) is None


@pytest.mark.parametrize(
    ("path", "usable"),
    [
        ("", True),
        ("x" * 255, True),
        ("x" * 256, False),
        ("\N{LATIN SMALL LETTER U WITH DIAERESIS}" * 128, False),
        ("x/" * 255, True),
        ("x/" * 256, False),
        (("x" * 254 + "/") * 17, False),
        ("a\0b", False),
        ("l\udcff", False),
    ],
)
def test_a_path_that_no_file_can_have_or_no_record_can_hold(path, usable):
    assert is_usable(path) == usable


@pytest.mark.parametrize(
    "name",
    ["contrib_" + "é" * 120, "client_" + "漢" * 80, "done_" + "😀" * 62, "x" * 255, "é" * 127 + "x", "short", "é" * 50],
)
def test_a_refused_file_is_kept_under_a_name_that_fits_and_is_whole_characters(tmp_path, name):
    kept = ExchangePaths(tmp_path).kept_as("1" * 19, name)
    assert len(os.fsencode(kept.name)) <= 120
    assert name.endswith(kept.name.split("_", 1)[1])
    kept.name.encode()
    kept.parent.mkdir()
    kept.touch()


@given(st.binary(min_size=1, max_size=255).filter(lambda name: not set(name) & {0, 0x2F}))
def test_bytes_that_are_no_text_are_kept_too(name):
    assert len(os.fsencode(ExchangePaths(Path("x")).kept_as("1" * 30, os.fsdecode(name)).name)) <= 131


def test_who_is_writing_what_its_temporary_name_says():
    paths = ExchangePaths(Path("x"))
    for client_id in (0, 1, 10):
        for path in (*paths.taken_away(client_id, 3), paths.status(client_id), paths.reply(client_id, 3, "keys", 0)):
            name = f".{path.name}.{'0' * 16}.tmp"
            assert [other for other in (None, 0, 1, 10, 100) if paths.is_half_written(name, other)] == [client_id]
    for path in (
        paths.task(1),
        paths.phase(1),
        paths.global_adapter(1),
        paths.reference("0" * 64),
        paths.correction("0" * 64),
        paths.adapter("0" * 64),
        paths.request,
    ):
        assert [other for other in (None, 0, 1) if paths.is_half_written(f".{path.name}.{'0' * 16}.tmp", other)] == [
            None
        ]
