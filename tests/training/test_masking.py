"""A client's part in secure sums: its secrets, what it refuses, and what it opens."""

import base64
import dataclasses
import shutil

import pytest

from fccl.errors import SettingsError, UpdateRejected
from fccl.keys import client_keys, create_keys
from fccl.messages import FitTask, Worker
from fccl.messages.secure import KeysTask, SharesTask, UnmaskTask
from fccl.paths import KeyPaths
from fccl.privacy.cohort import Cohort, SecureSpec, Session
from fccl.privacy.fixed_point import FixedPoint
from fccl.privacy.masks import public_of
from fccl.privacy.shamir import joined
from fccl.testing.secure import Folders, masking_learner
from fccl.testing.toy import MODEL, TRAIN, ToyLearner, adapter, shard
from fccl.training.masking import Masking, asked_of, digest_of
from fccl.training.private import PrivateLearner

TASK = FitTask("run", 0, "sft", adapter(1.0, 2.0, 3.0), None, MODEL, TRAIN, seed=7)
SESSION = Session(run_id="run", round=0, phase="sft", base_sha256=TASK.adapter.sha256, nonce="e" * 32)
FIXED = FixedPoint.of(bound=100.0, most=8, clients=3)
MEMBERS = (0, 1, 2)


@pytest.fixture
def folders(tmp_path):
    return Folders(tmp_path / "clients")


@pytest.fixture
def masking(folders):
    return Masking(folders)


@pytest.fixture
def cohort(masking):
    return cohort_of(masking)


def cohort_of(masking, session=SESSION):
    return Cohort.of(session.nonce, tuple(masking.published(session, client) for client in MEMBERS))


def task_of(cohort, members=MEMBERS):
    return dataclasses.replace(TASK, secure=SecureSpec(cohort=cohort, members=members, fixed=FIXED, clip=100.0))


def fit(folders, task, client=0):
    return masking_learner(ToyLearner(), folders).fit(task, shard(client), lambda status: None)


def request(masking, cohort, survivors=MEMBERS, dropped=(), session=SESSION):
    members = sorted({*survivors, *dropped})
    sealed = tuple(masking.shares(session, cohort, client) for client in members)
    return UnmaskTask(*session.parts, cohort, tuple(survivors), tuple(dropped), sealed)


def test_a_client_that_is_started_again_gives_the_same_bytes_and_another_secret_gives_others(
    folders, masking, tmp_path
):
    cohort = cohort_of(masking)
    first = masking.shares(SESSION, cohort, 1), fit(folders, task_of(cohort), 1)
    again = Masking(folders).shares(SESSION, cohort, 1), fit(folders, task_of(cohort), 1)
    assert first[0] == again[0]
    assert (first[1].adapter.sha256, first[1].masked) == (again[1].adapter.sha256, again[1].masked)
    shutil.rmtree(tmp_path / "clients" / "client_1")
    other = Masking(folders).published(SESSION, 1)
    assert {other.masks, other.shares}.isdisjoint({cohort.key_of(1).masks, cohort.key_of(1).shares})
    with pytest.raises(UpdateRejected, match="has not the keys that this client gave"):
        fit(folders, task_of(cohort), 1)


def test_all_that_is_public_does_not_reproduce_a_client_s_keys(masking, tmp_path):
    """Another client folder, the same seed, run, round and adapter: nothing of the keys is the same."""
    other = Masking(Folders(tmp_path / "others"))
    mine, theirs = masking.published(SESSION, 0), other.published(SESSION, 0)
    assert len({mine.masks, theirs.masks, mine.shares, theirs.shares}) == 4


def test_keys_are_of_one_session_alone(masking):
    found = {
        masking.published(SESSION.model_copy(update=change), 0).masks
        for change in (
            {},
            {"round": 1},
            {"phase": "va"},
            {"nonce": "d" * 32},
            {"run_id": "other"},
            {"base_sha256": "a" * 64},
        )
    }
    assert len(found) == 6


def test_shares_of_as_many_clients_as_the_threshold_open_a_seed_or_a_key(folders, masking, cohort):
    for client in MEMBERS:
        fit(folders, task_of(cohort, MEMBERS), client)
    asked = request(masking, cohort, survivors=(0, 1), dropped=(2,))
    replies = [masking.opened(asked, client) for client in (0, 1)]
    seeds = {reply.client_id: {each.client_id: bytes.fromhex(each.share) for each in reply.seeds} for reply in replies}
    said = {each.client_id: each for each in asked.sealed}
    for client in (0, 1):
        seed = joined({holder: shares[client] for holder, shares in seeds.items()})
        assert digest_of(seed) == said[client].seed_sha256
    key = joined({reply.client_id: bytes.fromhex(reply.masks[0].share) for reply in replies})
    assert public_of(key) == cohort.key_of(2).masks
    assert [set(of) for of in seeds.values()] == [{0, 1}, {0, 1}]  # of the one that dropped out no share of its seed


def test_no_update_is_told_by_asking_twice_under_the_same_masks(folders, cohort):
    """The difference of two answers under the same masks is that of their changes."""
    fit(folders, task_of(cohort))
    nothing = FIXED.model_copy(update={"bound": 1e-30})
    other = SecureSpec(cohort=cohort, members=MEMBERS, fixed=nothing, clip=100.0)
    with pytest.raises(UpdateRejected, match="have masked another update"):
        fit(folders, dataclasses.replace(TASK, secure=other))
    with pytest.raises(UpdateRejected, match="have masked another update"):
        fit(folders, dataclasses.replace(task_of(cohort), seed=8))
    fit(folders, task_of(cohort))


@pytest.mark.parametrize("change", [{"fixed": FIXED.model_copy(update={"bound": 1e-30})}, {"clip": 1e-30}, {"seed": 8}])
def test_the_masks_of_clients_that_were_asked_different_things_do_not_cancel(folders, cohort, change):
    """Else the sum with clients that were told to clip to nothing would be the update of the one that was not."""
    task = task_of(cohort)
    told = {name: value for name, value in change.items() if name != "seed"}
    other = dataclasses.replace(
        task, secure=task.secure.model_copy(update=told), **{name: change[name] for name in change.keys() - told.keys()}
    )
    assert asked_of(other, other.secure) != asked_of(task, task.secure)
    again = FitTask.from_terms(task.terms(), task.adapters())
    assert asked_of(again, again.secure) == asked_of(task, task.secure)


def test_a_client_gives_shares_to_one_cohort_of_its_keys(folders, masking):
    """Else one cohort gives its mask key, where it has dropped out, and the other the seed of its update."""
    keys = {client: masking.published(SESSION, client) for client in range(5)}
    one = Cohort.of(SESSION.nonce, tuple(keys[client] for client in (0, 1, 2)))
    other = Cohort.of(SESSION.nonce, tuple(keys[client] for client in (2, 3, 4)))
    masking.shares(SESSION, one, 2)
    with pytest.raises(UpdateRejected, match="in use with other clients"):
        Masking(folders).shares(SESSION, other, 2)
    masking.shares(SESSION, one, 2)


def test_a_request_for_both_secrets_of_a_client_is_refused(masking, cohort):
    asked = request(masking, cohort, survivors=(0, 1), dropped=(2,))
    terms = asked.terms() | {"survivors": [0, 1, 2], "dropped": [2]}
    with pytest.raises(UpdateRejected, match="both secrets of client 2, which would open its update"):
        UnmaskTask.from_terms(terms, {})


def test_two_requests_that_together_ask_for_both_are_refused_also_by_a_client_that_was_started_again(
    folders, masking, cohort
):
    for client in MEMBERS:
        fit(folders, task_of(cohort), client)
    masking.opened(request(masking, cohort, survivors=(0, 1), dropped=(2,)), 0)
    with pytest.raises(UpdateRejected, match="another sum of this round"):
        Masking(folders).opened(request(masking, cohort, survivors=(0, 1, 2)), 0)
    masking.opened(request(masking, cohort, survivors=(0, 1), dropped=(2,)), 0)  # the same once more


def test_a_second_attempt_at_a_round_opens_no_other_sum(folders, masking, cohort):
    for client in MEMBERS:
        fit(folders, task_of(cohort), client)
    masking.opened(request(masking, cohort), 0)
    later = SESSION.model_copy(update={"nonce": "b" * 32})
    second = cohort_of(masking, later)
    for client in MEMBERS:
        fit(folders, task_of(second), client)
    with pytest.raises(UpdateRejected, match="another sum of this round"):
        masking.opened(request(masking, second, survivors=(0, 1), dropped=(2,), session=later), 0)


def test_one_update_is_masked_for_one_set_of_members(folders, masking, cohort):
    fit(folders, task_of(cohort))
    with pytest.raises(UpdateRejected, match="needs new keys"):
        fit(folders, task_of(cohort, (0, 1)))


def test_a_client_that_is_no_member_masks_nothing_and_one_that_is_no_survivor_opens_nothing(folders, masking, cohort):
    with pytest.raises(UpdateRejected, match="no member"):
        fit(folders, task_of(cohort, (0, 1)), 2)
    for client in MEMBERS:
        fit(folders, task_of(cohort), client)
    with pytest.raises(UpdateRejected, match="none of the survivors"):
        masking.opened(request(masking, cohort, survivors=(0, 1), dropped=(2,)), 2)


def test_a_share_that_was_not_sealed_for_this_client_is_left_out_and_the_others_are_given(folders, masking, cohort):
    for client in MEMBERS:
        fit(folders, task_of(cohort), client)
    asked = request(masking, cohort)
    noise = base64.b64encode(bytes(84)).decode()
    spoilt = asked.sealed[1].model_copy(update={"sealed": (noise,) * 3})
    asked = dataclasses.replace(asked, sealed=(asked.sealed[0], spoilt, asked.sealed[2]))
    assert [each.client_id for each in masking.opened(asked, 0).seeds] == [0, 2]


def test_a_share_that_its_digest_does_not_fit_is_left_out_so_that_its_dealer_can_put_it_down_to_nobody(
    folders, masking, cohort
):
    for client in MEMBERS:
        fit(folders, task_of(cohort), client)
    asked = request(masking, cohort)
    spoilt = asked.sealed[1].model_copy(update={"digests": asked.sealed[2].digests})
    asked = dataclasses.replace(asked, sealed=(asked.sealed[0], spoilt, asked.sealed[2]))
    assert [each.client_id for each in masking.opened(asked, 0).seeds] == [0, 2]


def test_a_client_that_wants_more_to_be_needed_refuses_a_sum_that_fewer_can_open(folders, masking):
    keys = tuple(masking.published(SESSION, client) for client in MEMBERS)
    strict = Masking(folders, threshold=0.9)
    with pytest.raises(UpdateRejected, match="2 of 3 clients could open the sum, and this client wants 3"):
        strict.shares(SESSION, Cohort.of(SESSION.nonce, keys), 0)
    assert strict.shares(SESSION, Cohort.of(SESSION.nonce, keys, 0.9), 0).client_id == 0


def test_a_client_that_masks_for_three_has_no_part_in_a_sum_of_two_at_any_step(folders):
    strict = Masking(folders, least=3)
    two = Cohort.of(SESSION.nonce, tuple(strict.published(SESSION, client) for client in MEMBERS[:2]))
    with pytest.raises(UpdateRejected, match=r"the sum would be of 2 clients, and this client masks for 3"):
        strict.shares(SESSION, two, 0)
    all_three = cohort_of(strict)
    learner = PrivateLearner(ToyLearner(), folders, masking=strict)
    with pytest.raises(UpdateRejected, match=r"of 2 clients, and this client masks for 3"):
        learner.fit(task_of(all_three, MEMBERS[:2]), shard(0), lambda status: None)
    learner.fit(task_of(all_three), shard(0), lambda status: None)
    with pytest.raises(UpdateRejected, match=r"of 2 clients, and this client masks for 3"):
        strict.opened(request(strict, all_three, survivors=(0, 1), dropped=(2,)), 0)
    assert len(strict.opened(request(strict, all_three), 0).seeds) == 3


@pytest.fixture
def signing(tmp_path, folders):
    """The part of each client in sums with keys."""
    paths = KeyPaths(tmp_path / "keys")
    create_keys(paths, 3)
    return [Masking(folders, client_keys(paths, client)) for client in MEMBERS]


def test_with_keys_a_client_believes_no_key_that_its_owner_has_not_signed(signing, masking):
    keys = [each.published(SESSION, client) for client, each in enumerate(signing)]
    cohort = Cohort.of(SESSION.nonce, tuple(keys))
    assert len(signing[0].shares(SESSION, cohort, 0).sealed) == 3
    made_up = keys[1].model_copy(update={"shares": "12" * 32})  # a server that would read the shares for client 1
    for wrong in (made_up, masking.published(SESSION, 1), keys[1].model_copy(update={"signature": keys[2].signature})):
        with pytest.raises(UpdateRejected, match="client 1 has not signed its keys"):
            signing[0].shares(SESSION, Cohort.of(SESSION.nonce, (keys[0], wrong, keys[2])), 0)


def test_signed_keys_of_another_session_are_not_believed(signing):
    keys = [each.published(SESSION, client) for client, each in enumerate(signing)]
    old = signing[1].published(SESSION.model_copy(update={"round": 1}), 1)
    with pytest.raises(UpdateRejected, match="client 1 has not signed its keys"):
        signing[0].shares(SESSION, Cohort.of(SESSION.nonce, (keys[0], old, keys[2])), 0)


def test_a_client_that_insists_on_masks_refuses_a_round_without(folders):
    learner = PrivateLearner(ToyLearner(), folders, masking=Masking(folders), only_masked=True)
    with pytest.raises(SettingsError, match="this client sends no other") as caught:
        learner.fit(TASK, shard(0), lambda status: None)
    assert caught.value.hint


def test_a_client_that_knows_no_masks_refuses_a_round_with_them(folders, cohort):
    with pytest.raises(UpdateRejected, match="takes no part in secure sums"):
        PrivateLearner(ToyLearner(), folders).fit(task_of(cohort), shard(0), lambda status: None)


def test_every_step_is_answered_by_a_worker_from_its_terms(masking, cohort):
    worker = Worker(ToyLearner(), shard, masking.services())
    for asked in (KeysTask(*SESSION.parts), SharesTask(*SESSION.parts, cohort)):
        again = type(asked).from_terms(asked.terms(), {})
        assert again == asked
        answer = worker.answer(again, 1, lambda status: None)
        assert isinstance(answer, asked.answered_by)
        assert answer.client_id == 1
