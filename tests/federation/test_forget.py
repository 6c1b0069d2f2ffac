"""Taking a client out: its first update, its files, the time that is said before."""

import pytest

from fccl.aggregation.rules import aggregation
from fccl.errors import FederationError
from fccl.federation.forget import files_of, first_update, made_with, names_of, predicted_seconds, remove, require_own
from fccl.federation.kept_rounds import kept_round
from fccl.federation.what_if import records_by_round, rounds_with
from fccl.records.run import Contribution
from fccl.records.secure import SecureRound
from fccl.testing.toy import ToyLearner, federation
from tests.federation.toy_runs import CLIENTS, ROUNDS, conduct


@pytest.fixture
def run(tmp_path):
    return conduct(tmp_path, federation(per_round=2, aggregation=aggregation("scaffold")))


def test_the_first_update_is_that_of_the_first_round_that_has_one(run):
    logs, results = run
    for client in range(CLIENTS):
        numbers = [result.record.round for result in results if client in result.record.clients]
        assert list(rounds_with(logs, client)) == numbers
        if numbers:
            assert first_update(logs, client) == numbers[0]


def test_an_update_that_arrived_and_did_not_count_is_one_too(tmp_path):
    logs, results = conduct(tmp_path, federation(max_update_ratio=1.05))
    left_out = {each.client_id for result in results for each in result.record.excluded}
    assert left_out
    for client in left_out:
        assert first_update(logs, client) == 0


def test_a_client_without_an_update_is_one_line(tmp_path):
    logs, _ = conduct(tmp_path, learner=ToyLearner(broken=frozenset({2})))
    with pytest.raises(FederationError, match="no update of client 2"):
        first_update(logs, 2)


def test_an_update_that_is_known_by_a_sum_alone_cannot_be_taken_out(tmp_path):
    logs, results = conduct(tmp_path)
    summed = SecureRound(clients=(0, 2), dropped=(), cohort=2, threshold=2, bound=10.0, most=1, bits=20)
    hidden = {"clients": (), "weights": (), "scores": (), "contributions": (), "arrived": (), "secure": summed}
    records = [result.record.model_copy(update=hidden) for result in results]
    logs.progress.write_text("".join(f"{record.model_dump_json()}\n" for record in records))
    with pytest.raises(FederationError, match="client 2's updates are known by secure sums alone, from round 1 on"):
        first_update(logs, 2)
    with pytest.raises(FederationError, match="no update of client 1 is in this run"):
        first_update(logs, 1)


def test_its_files_are_all_that_bear_its_number_and_no_others(run):
    logs, _ = run
    client = next(client for client in range(CLIENTS) if list(rounds_with(logs, client)))
    mine = files_of(logs, client)
    kept = [kept_round(logs, number) for number in rounds_with(logs, client)]
    for each in kept:
        hashes = next(one for one in each.record.arrived if one.client_id == client)
        assert each.paths.update(client, hashes.sha256) in mine
        assert each.paths.control(client, hashes.control_sha256) in mine
    others = {path for other in range(CLIENTS) if other != client for path in files_of(logs, other)}
    assert not others & set(mine)
    before = {path for path in logs.root.rglob("*") if path.is_file()}
    remove(mine)
    assert before - {path for path in logs.root.rglob("*") if path.is_file()} == set(mine)
    assert files_of(logs, client) == []


def test_a_file_behind_a_link_is_not_removed(run, tmp_path):
    logs, _ = run
    client = next(client for client in range(CLIENTS) if list(rounds_with(logs, client)))
    require_own(logs, client)
    logs.kept.rename(tmp_path / "elsewhere")
    logs.kept.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FederationError, match="lies behind a link"):
        require_own(logs, client)


def test_client_1_is_not_client_11(tmp_path):
    logs, _ = conduct(tmp_path, federation(clients=12, rounds=1))
    names = names_of(logs, files_of(logs, 1))
    assert names
    assert not any("_11_" in name for name in names)


def test_what_was_made_with_it_is_named(run):
    logs, _ = run
    names = names_of(logs, made_with(logs, 1))
    assert {"global_sft.safetensors", "global_final.safetensors", "rounds/", "kept/round_2/"} <= set(names)
    assert {"state.json", "state_sft.json"} <= set(names), "a weighing rule's memory is there"
    assert not {"kept/round_0/", "kept/round_1/"} & set(names)


@pytest.mark.parametrize(("first", "expected"), [(0, 4 * (1 + 2 + 4 + 5)), (2, 6 * (1 + 2 + 4 + 5))])
def test_the_time_is_that_of_the_others_one_after_another_and_the_servers(tmp_path, first, expected):
    """Clients of 1, 2, 3 and 4 seconds and a server of 5: without client 2 a round takes 12."""
    logs, _ = conduct(tmp_path)
    lines = [
        record.model_copy(
            update={
                "seconds": 15.0,
                "contributions": tuple(
                    Contribution(avg_loss=1, num_samples=1, seconds=1.0 + c) for c in record.clients
                ),
            }
        ).model_dump_json()
        for record in records_by_round(logs).values()
    ]
    logs.progress.write_text("\n".join(lines) + "\n")
    assert len(lines) == ROUNDS
    assert predicted_seconds(logs, 2, first) == pytest.approx(expected)
