"""The ledger of a secret's owner: once for the same, twice for what is not, and never forgotten."""

import stat

import pytest

from fccl.errors import StorageError
from fccl.privacy.spent import NAME, Release, Spent

FIRST = Release(run_id="run", round=0, secret="a" * 16, tag="t", noise=1.0)


def with_(**changes):
    return FIRST.model_copy(update=changes)


def test_the_same_release_is_spent_once_whatever_process_writes_it(tmp_path):
    Spent(tmp_path).add(FIRST)
    again = Spent(tmp_path)
    again.add(FIRST)
    assert Spent(tmp_path).releases == again.releases == [FIRST]
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600


def test_releases_of_one_round_are_not_cheaper_for_its_draw(tmp_path):
    spent = Spent(tmp_path)
    for release in (FIRST, with_(round=1), with_(round=1, secret="b" * 16), with_(round=2), with_(run_id="other")):
        spent.add(release)
    assert spent.counted("run") == (2, 2)
    assert spent.counted("run", [with_(round=3)]) == (3, 2)
    assert spent.counted("run", [with_(tag="another sum")]) == (1, 4)
    assert [each.run_id for each in spent.of("other")] == ["other"]


@pytest.mark.parametrize("content", [b"{", b'{"run_id": "run"}\n', b"\x00\n"])
def test_a_damaged_ledger_is_an_error_for_what_is_spent_must_not_be_forgotten(tmp_path, content):
    Spent(tmp_path).add(FIRST)
    with (tmp_path / NAME).open("ab") as file:
        file.write(content)
    with pytest.raises(StorageError, match="what is spent"):
        Spent(tmp_path)
