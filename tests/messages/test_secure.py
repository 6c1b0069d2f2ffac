"""Requests of a secure sum as JSON: read again as they were, and refused where they ask for what nobody may."""

import json

import pytest
from pydantic import ValidationError

from fccl.errors import UpdateRejected
from fccl.messages import FitTask
from fccl.messages.secure import KeysTask, SealedShares, SharesTask, UnmaskTask
from fccl.privacy.cohort import MOST_CLIENTS, Cohort, MaskKeys, SecureSpec
from fccl.privacy.fixed_point import FixedPoint
from fccl.testing.toy import MODEL, TRAIN, adapter
from fccl.transports.exchange.wire import MAX_JSON_BYTES, MAX_TASK_BYTES

NONCE = "f" * 32
PARTS = ("run", 4, "va", "a" * 64, NONCE)
COHORT = Cohort.of(
    NONCE, tuple(MaskKeys(client_id=one, masks=f"{one:064x}", shares=f"{one + 9:064x}") for one in (0, 2, 5))
)
SEALED = tuple(
    SealedShares(client_id=one, seed_sha256="b" * 64, sealed=("A" * 112,) * 3, digests=("A" * 43 + "=",) * 3)
    for one in (0, 2, 5)
)
UNMASK = UnmaskTask(*PARTS, COHORT, (0, 5), (2,), SEALED)


@pytest.mark.parametrize(
    "task", [KeysTask(*PARTS), SharesTask(*PARTS, COHORT), UNMASK], ids=lambda task: str(task.step)
)
def test_a_request_is_read_again_as_it_was(task):
    assert type(task).from_terms(task.terms(), {}) == task
    assert task.adapters() == {}
    with pytest.raises(UpdateRejected, match="comes with adapters"):
        type(task).from_terms(task.terms(), {"adapter": adapter(1.0)})
    with pytest.raises(UpdateRejected):
        type(task).from_terms(task.terms() | {"more": 1}, {})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"survivors": [0, 2, 5], "dropped": [2]}, "both secrets of client 2"),
        ({"survivors": [0], "dropped": [2, 5]}, "fewer than the threshold"),
        ({"survivors": [0, 7], "dropped": [2]}, "not clients of the cohort"),
        ({"survivors": [0, 2, 5], "dropped": [], "sealed": []}, "not those of the members"),
        ({"nonce": "0" * 32}, "another session"),
    ],
)
def test_a_request_to_unmask_that_nobody_may_ask_is_refused(change, says):
    with pytest.raises(UpdateRejected, match=says):
        UnmaskTask.from_terms(UNMASK.terms() | change, {})


def test_a_reply_has_a_digest_for_every_sealed_share():
    said = SEALED[0].model_dump(mode="json")
    with pytest.raises(ValidationError, match="not as many digests as sealed shares"):
        SealedShares.model_validate(said | {"digests": said["digests"][:2]})


def test_the_shares_of_the_largest_round_fit_into_a_request_and_a_reply():
    """With signed keys and long numbers of clients, as JSON is written at its widest."""
    clients = tuple(range(99_900, 99_900 + MOST_CLIENTS))
    keys = tuple(MaskKeys(client_id=one, masks="a" * 64, shares="b" * 64, signature="c" * 88) for one in clients)
    sealed = tuple(
        SealedShares(
            client_id=one,
            seed_sha256="b" * 64,
            sealed=("A" * 112,) * MOST_CLIENTS,
            digests=("A" * 43 + "=",) * MOST_CLIENTS,
        )
        for one in clients
    )
    asked = UnmaskTask(*PARTS, Cohort.of(NONCE, keys), clients, (), sealed)
    assert len(json.dumps(asked.terms())) < MAX_TASK_BYTES - 10_000  # of which the rest of the request has room
    assert len(sealed[0].model_dump_json()) < MAX_JSON_BYTES / 2


def test_a_task_takes_the_sum_that_it_is_masked_for_with_it():
    spec = SecureSpec(cohort=COHORT, members=(0, 2), fixed=FixedPoint.of(bound=1.0, most=5, clients=3), clip=1.0)
    task = FitTask("run", 0, "sft", adapter(1.0, 2.0), None, MODEL, TRAIN, seed=7, secure=spec)
    assert FitTask.from_terms(task.terms(), task.adapters()).secure == spec
    assert "secure" not in FitTask("run", 0, "sft", adapter(1.0), None, MODEL, TRAIN, seed=7).terms()
