"""Values of a secure sum: what is none cannot be built."""

import pytest
from pydantic import ValidationError

from fccl.privacy.cohort import MOST_CLIENTS, Cohort, MaskKeys, SecureSpec, Session, mask_tag
from fccl.privacy.fixed_point import FixedPoint

NONCE = "f" * 32
SESSION = Session(run_id="run", round=0, phase="sft", base_sha256="a" * 64, nonce=NONCE)


def keys(*clients):
    return tuple(MaskKeys(client_id=client, masks=f"{client:064x}", shares=f"{client + 1:064x}") for client in clients)


@pytest.mark.parametrize(
    ("clients", "threshold"), [(2, 2), (3, 2), (4, 3), (5, 3), (MOST_CLIENTS, MOST_CLIENTS // 2 + 1)]
)
def test_the_threshold_is_the_smallest_that_is_more_than_half(clients, threshold):
    assert Cohort.of(NONCE, keys(*range(clients))).threshold == threshold


@pytest.mark.parametrize(
    ("clients", "threshold"), [((0, 1, 2, 3), 2), ((0, 1), 3), ((1, 0), 2), ((0, 0, 1), 2), ((0,), 2)]
)
def test_a_cohort_without_a_majority_or_an_order_is_none(clients, threshold):
    with pytest.raises(ValidationError):
        Cohort(nonce=NONCE, threshold=threshold, keys=keys(*clients))


def test_a_cohort_has_at_most_so_many_clients_that_their_shares_fit_into_a_request():
    with pytest.raises(ValidationError):
        Cohort.of(NONCE, keys(*range(MOST_CLIENTS + 1)))
    assert MOST_CLIENTS**2 * len('"' + "A" * 112 + '",') < 1_048_576 - 40_000  # beside their keys, signed


@pytest.mark.parametrize("members", [(0,), (0, 3), (1, 0), (0, 0, 1)])
def test_members_are_clients_of_the_cohort_as_many_as_a_sum_needs(members):
    cohort, fixed = Cohort.of(NONCE, keys(0, 1, 2)), FixedPoint.of(bound=1.0, most=1, clients=3)
    with pytest.raises(ValidationError):
        SecureSpec(cohort=cohort, members=members, fixed=fixed, clip=1.0)
    assert SecureSpec(cohort=cohort, members=(0, 2), fixed=fixed, clip=1.0).members == (0, 2)


def test_tags_are_of_all_that_masks_are_made_for():
    cohort = Cohort.of(NONCE, keys(0, 1, 2))
    others = [
        cohort.tag(SESSION.model_copy(update={"round": 1})),
        cohort.tag(SESSION.model_copy(update={"base_sha256": "b" * 64})),
        Cohort.of(NONCE, keys(0, 1, 3)).tag(SESSION),
        cohort.model_copy(update={"threshold": 3}).tag(SESSION),
    ]
    assert len({cohort.tag(SESSION), *others}) == 5
    assert len({mask_tag("a", (0, 1), "b"), mask_tag("a", (0, 2), "b"), mask_tag("a", (0, 1), "c")}) == 3
