"""An open federation as people start it: commands, keys, sites that come later and sites that go."""

import signal

import pytest

from fccl.apps.main import main
from fccl.paths import ExchangePaths
from fccl.records.members import Departure
from fccl.records.run import RoundRecord
from fccl.storage.reading import read_records
from tests.apps.commands import PATIENT, finished, start, wait_for
from tests.apps.test_sites import SERVER, site_files
from tests.own_rules import HELD, HOLD, write


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["orchestrator", "--open"], "error: --open does not go with an empty KEYS_DIR"),
        (
            ["orchestrator", "--open", "--keys-dir", "keys", "--aggregation", "scaffold"],
            "error: --open does not go with",
        ),
        (
            ["orchestrator", "--late-updates", "next", "--keep-rounds", "0"],
            "error: LATE_UPDATES=next needs KEEP",
        ),
        (["orchestrator", "--late-updates", "next", "--lora-aggregation", "svd"], "error: LATE_UPDATES=next does not"),
        (["client", "--leave"], "error: who leaves signs it, and the client has no key"),
        (["client", "--leave", "--keys-dir", "keys"], "error: keys/public.json is not there"),
        (["keys", "--add", "1"], "error: keys/public.json is not there"),
    ],
)
def test_what_does_not_go_together_is_one_line(tmp_path, monkeypatch, capsys, arguments, error):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) != 0
    said = capsys.readouterr().err
    assert said.startswith(error)
    assert said.count("\n") <= 2


@pytest.mark.slow
def test_one_site_leaves_and_another_joins_while_the_run_goes_on(tmp_path):
    """Both while the second round is weighed, which a file holds: so both are heard before the third."""
    rule = write(tmp_path, "rules_of_an_open_run") + ":Asks"
    (tmp_path / HOLD).touch()
    sites = site_files(tmp_path)
    assert finished(start(tmp_path, "keys", "--num-clients", "2"))[0] == 0

    def site(client):
        files = [f"--{name.replace('_', '-')}={path}" for name, path in sites[client % 2].items()]
        return start(tmp_path, "client", "--client-id", str(client), "--keys-dir", "keys", *files)

    clients = {number: site(number) for number in (0, 1)}
    run = start(
        tmp_path,
        *("orchestrator", "--open", "--keys-dir", "keys", "--num-clients", "2", "--fed-rounds", "2"),
        *("--contribution-source", rule, "--threads", "1", "--no-evaluate", *SERVER, *PATIENT),
    )
    wait_for(run, (tmp_path / HELD).exists)
    clients[0].send_signal(signal.SIGTERM)
    finished(clients.pop(0))
    left = finished(start(tmp_path, "client", "--client-id", "0", "--keys-dir", "keys", "--leave"))
    assert left[0] == 0, left[1]
    assert "Client 0 leaves run" in left[1]
    assert finished(start(tmp_path, "keys", "--add", "1"))[0] == 0
    clients[2] = site(2)
    wait_for(clients[2], ExchangePaths(tmp_path / "exchange").member(2).exists)
    (tmp_path / HOLD).unlink()
    status, output = finished(run)
    assert status == 0, output
    assert [finished(client)[0] for client in clients.values()] == [0, 0]
    records = read_records(tmp_path / "logs" / "progress.jsonl", RoundRecord, lambda row: row.get("event") == "round")
    assert [each.clients for each in records] == [(0, 1), (0, 1), (1, 2), (1, 2)]
    assert [each.joined for each in records] == [(), (), (2,), ()]
    assert [each.left for each in records] == [(), (), (Departure(client_id=0),), ()]
    assert [[said.client_id for said in each.declared] for each in records] == [[0, 1], [0, 1], [1, 2], [1, 2]]
    assert "client 2 has joined" in output
    assert "client 0 has left" in output
