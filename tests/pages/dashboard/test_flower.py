"""The dashboard of a run over Flower: its sites are there, and the bytes that were carried to them."""

import time

from fccl.records.sent import SentBytes
from fccl.records.sites import CarriedRound, SiteRecord, SitesRecord
from fccl.storage.files import write_text
from tests.pages.script import shown, texts
from tests.view.logs import Logs


def run(folder, over_flower):
    """A run after its first round; one of its sites has gone a minute ago."""
    logs, now = Logs(folder / "logs").begin(), time.time()
    sent = SentBytes(codec="fp32", up=3_000, down=1_000, whole=1_000)
    logs.append(logs.paths.progress, logs.record(0).model_copy(update={"sent": sent, "time": now}))
    logs.commit(1)
    if over_flower:
        there = SiteRecord(client_id=0, online=True, seen=now, down=7_000, up=6_000)
        gone = SiteRecord(client_id=1, seen=now - 100)
        rounds = (CarriedRound(round=0, down=21_000, up=18_000),)
        said = SitesRecord(run_id=logs.run_id, time=now, sites=(there, gone), rounds=rounds)
        write_text(logs.paths.sites, said.model_dump_json())


def test_clients_shows_the_state_of_every_site(page, tmp_path):
    run(tmp_path, over_flower=True)
    found = texts(shown(page, "Clients"))
    for part in ("Sites", "✓ online", "✕ cut off", "1 min ago", "7.0 kB", "6.0 kB"):
        assert part in found


def test_exchange_shows_the_bytes_of_every_round(page, tmp_path):
    run(tmp_path, over_flower=True)
    found = texts(shown(page, "Exchange"))
    for part in ("Bytes by round", "carried up", "3.0 kB", "18.0 kB", "21.0 kB"):
        assert part in found


def test_a_run_over_a_directory_has_bytes_and_no_sites(page, tmp_path):
    run(tmp_path, over_flower=False)
    assert "Bytes by round" in texts(shown(page, "Exchange"))
    assert "carried" not in texts(shown(page, "Exchange"))
    assert "SuperNode" not in texts(shown(page, "Clients"))
