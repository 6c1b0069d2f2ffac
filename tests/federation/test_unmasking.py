"""False shares of a secret: each is put down to the client that gave or dealt it, and left out where others do."""

import dataclasses
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.errors import FederationError, UpdateRejected
from fccl.messages import FitTask
from fccl.messages.secure import OpenedShares, SealedShares, UnmaskTask
from fccl.privacy.cohort import Cohort, SecureSpec, Session
from fccl.privacy.fixed_point import FixedPoint
from fccl.privacy.shamir import SHARE_BYTES
from fccl.testing.secure import FIT, UNMASK, Folders, Losing, masking_learner, masking_transport
from fccl.testing.toy import MODEL, START, TRAIN, ToyLearner, adapter, shard
from fccl.training.masking import Masking, Own
from fccl.transports.wrapped import WrappedTransport
from tests.examples import few
from tests.federation.test_secure_aggregation import CLIENTS, by_hand, fed_of

THRESHOLD = 3
TASK = FitTask("run", 0, "sft", adapter(1.0, 2.0, 3.0), None, MODEL, TRAIN, seed=7)
SESSION = Session(run_id="run", round=0, phase="sft", base_sha256=TASK.adapter.sha256, nonce="e" * 32)
FIXED = FixedPoint.of(bound=100.0, most=8, clients=CLIENTS)


@dataclasses.dataclass(frozen=True, eq=False)
class Lying(WrappedTransport):
    """A transport some of whose clients give other shares than they were dealt, of the secrets in `about`."""

    liars: frozenset
    about: frozenset

    def ask(self, request, client_ids):
        for answer in super().ask(request, client_ids):
            if isinstance(answer, OpenedShares) and answer.client_id in self.liars:
                yield answer.model_copy(update={"seeds": self._other(answer.seeds), "masks": self._other(answer.masks)})
            else:
                yield answer

    def _other(self, shares):
        false = os.urandom(SHARE_BYTES).hex()
        return tuple(
            each.model_copy(update={"share": false}) if each.client_id in self.about else each for each in shares
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Dealing(WrappedTransport):
    """A transport whose `dealer` says other digests of its shares than those that it has sealed."""

    dealer: int

    def ask(self, request, client_ids):
        for answer in super().ask(request, client_ids):
            if isinstance(answer, SealedShares) and answer.client_id == self.dealer:
                yield answer.model_copy(update={"digests": answer.digests[::-1]})
            else:
                yield answer


def run(folder, wrap, lost=None):
    fed = fed_of(folder, sft_rounds=1, va_rounds=0)
    inner = Losing(masking_transport(ToyLearner(), Folders(folder / "clients")), lost or {})
    [result] = fed.run(START, wrap(inner))
    return fed, result


@given(
    st.frozensets(st.integers(0, CLIENTS - 1), max_size=4),
    st.frozensets(st.integers(0, CLIENTS - 1), min_size=1),
    st.sampled_from([(), (4,)]),
)
@settings(max_examples=few(25))
def test_the_round_goes_on_without_false_shares_or_names_all_that_gave_one(tmp_path_factory, liars, about, dropped):
    folder = tmp_path_factory.mktemp("false")
    survivors = [client for client in range(CLIENTS) if client not in dropped]
    heard = sorted(liars.intersection(survivors))

    def wrap(inner):
        return Lying(inner, liars, about)

    if len(survivors) - len(heard) < THRESHOLD:
        with pytest.raises(FederationError, match="gave a false share of client") as caught:
            run(folder, wrap, {FIT: set(dropped)})
        assert f"client{'s' * (len(heard) > 1)} {', '.join(map(str, heard))} gave" in str(caught.value)
        assert caught.value.hint
        return
    fed, result = run(folder, wrap, {FIT: set(dropped)})
    assert result.state.adapter.sha256 == by_hand(fed, START.adapter, 0, "sft", survivors).sha256
    assert result.record.secure.false_shares == tuple(heard)
    assert result.record.secure.clients == tuple(survivors)


def test_after_false_shares_the_same_sum_is_opened_once_its_clients_are_mended(tmp_path):
    with pytest.raises(FederationError, match="clients 0, 1, 2 gave a false share of client 0's secret"):
        run(tmp_path, lambda inner: Lying(inner, frozenset({0, 1, 2}), frozenset(range(CLIENTS))))
    fed, result = run(tmp_path, lambda inner: inner)
    assert result.state.adapter.sha256 == by_hand(fed, START.adapter, 0, "sft", range(CLIENTS)).sha256


def test_a_dealer_whose_digests_do_not_fit_is_named_and_its_holders_are_not(tmp_path):
    with pytest.raises(FederationError, match=r"1 right share of client 3's secret, and 3 are needed: .*open theirs"):
        run(tmp_path, lambda inner: Dealing(inner, 3))


@pytest.mark.parametrize(("dropped", "what"), [((), "seed"), ((2,), "key")])
def test_a_dealer_of_shares_that_fit_their_digests_and_give_another_secret_is_named(
    tmp_path, monkeypatch, dropped, what
):
    honest = Own.shares_of

    def shares_of(self, secret, kind, tag, cohort):
        return honest(self, bytes(32) if (self.client_id, kind) == (2, what) else secret, kind, tag, cohort)

    monkeypatch.setattr(Own, "shares_of", shares_of)
    with pytest.raises(FederationError, match="client 2 dealt false shares of its own secret") as caught:
        run(tmp_path, lambda inner: inner, {FIT: set(dropped)})
    assert "without that client" in caught.value.hint


def test_a_holder_that_withholds_its_shares_ends_no_round_while_enough_are_left(tmp_path):
    fed, result = run(tmp_path, lambda inner: inner, {UNMASK: {0, 1}})
    assert result.state.adapter.sha256 == by_hand(fed, START.adapter, 0, "sft", range(CLIENTS)).sha256
    assert result.record.secure.false_shares == ()


@given(st.lists(st.tuples(st.integers(0, CLIENTS - 1), st.booleans()), max_size=12), st.sets(st.integers(0, 3)))
@settings(max_examples=few(25))
def test_a_server_that_tells_clients_different_survivors_opens_no_update_without_help(tmp_path_factory, asked, helpers):
    """Each client is asked for either set in any order. Both secrets of client 4 need 2t answers, and a client that
    follows the protocol gives one; so 2t - n clients that answer for both are needed."""
    masking = Masking(Folders(tmp_path_factory.mktemp("split") / "clients"))
    learner = masking_learner(ToyLearner(), masking.folder)
    cohort = Cohort.of(SESSION.nonce, tuple(masking.published(SESSION, client) for client in range(CLIENTS)))
    everybody = tuple(range(CLIENTS))
    sealed = tuple(masking.shares(SESSION, cohort, client) for client in everybody)
    spec = SecureSpec(cohort=cohort, members=everybody, fixed=FIXED, clip=1.0)
    for client in everybody:
        learner.fit(dataclasses.replace(TASK, secure=spec), shard(client), lambda status: None)
    whole = UnmaskTask(*SESSION.parts, cohort, everybody, (), sealed)
    without = dataclasses.replace(whole, survivors=everybody[:4], dropped=(4,))
    seeds, keys = set(helpers), set(helpers)  # who has given its share of client 4's seed, and of its mask key
    for client, tells_of_all in asked:
        try:
            given_shares = masking.opened(whole if tells_of_all else without, client)
        except UpdateRejected:
            continue
        seeds |= {client} if any(each.client_id == 4 for each in given_shares.seeds) else set()
        keys |= {client} if any(each.client_id == 4 for each in given_shares.masks) else set()
    if len(helpers) < 2 * THRESHOLD - CLIENTS:
        assert min(len(seeds), len(keys)) < THRESHOLD
    assert len(seeds) + len(keys) <= CLIENTS + len(helpers)
