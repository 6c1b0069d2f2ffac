"""`AggregationContract`: the promises of an aggregation rule, as tests that its author runs.

class TestWithoutTheFarthest(AggregationContract):
    withstands = 1

    def rule(self):
        return WithoutTheFarthest()
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fccl.adapters.adapter import Adapter
from fccl.aggregation.protocol import Aggregated, Aggregation, Parts
from fccl.aggregation.state import ServerState, server_state_from_bytes
from fccl.errors import AdapterError, FederationError
from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.transports.in_process import InProcessTransport

ROUNDING = 1e-5  # of the largest value: what float32 and the order of sums may change
CLIENTS, COLUMNS = 9, 5
_SPLIT = 2  # the first values of a row are the tensor `a`, the others a column `b`
Matrix = NDArray[np.float64]
SEEDS = range(3)


def adapter(row: Sequence[float] | Matrix) -> Adapter:
    """An adapter of two tensors with these values."""
    values = torch.from_numpy(np.array(row, dtype=np.float32))
    return Adapter({"a": values[:_SPLIT].clone(), "b": values[_SPLIT:, None].clone()})


def values(adapter: Adapter) -> Matrix:
    """The inverse of `adapter`, in float64."""
    return np.concatenate([tensor.double().numpy().ravel() for tensor in adapter.tensors.values()])


def parts(rows: Matrix, weights: Matrix | None = None) -> Parts:
    """A round's updates, one a row; equal weights unless some are given."""
    shares = np.ones(len(rows)) if weights is None else weights
    return Parts(tuple((shares / shares.sum()).tolist()), tuple(adapter(row) for row in rows))


def drawn(seed: int, clients: int = CLIENTS) -> tuple[Matrix, Matrix]:
    """Rows of updates that differ from each other, and weights none of which is zero."""
    draw = np.random.default_rng(seed)
    return draw.normal(size=(clients, COLUMNS)), draw.uniform(0.1, 1.0, clients)


def close(left: Matrix, right: Matrix, scale: Matrix) -> None:
    """Equal but for rounding."""
    np.testing.assert_allclose(left, right, rtol=0, atol=ROUNDING * max(1.0, float(np.abs(scale).max())))


class AggregationContract:
    """A subclass says how the rule is built, and what it promises beyond the least; pytest finds the tests in it."""

    keeps_equal_updates: ClassVar[bool] = True  # updates that are all the same are the result; false for optimisers
    withstands: ClassVar[int] = 0  # bad ones of nine updates that cannot take the adapter away

    def rule(self) -> Aggregation:
        """The rule under test. It takes nine updates a round."""
        raise NotImplementedError("say which rule to test")

    def aggregate(self, before: Matrix, updates: Parts) -> Aggregated:
        """One round from the rule's initial state."""
        start = adapter(before)
        return self.rule().aggregate(start, updates, self.rule().initial(start))

    def test_it_has_a_name_and_says_whether_it_takes_the_weights(self) -> None:
        assert isinstance(self.rule().name, str)
        assert self.rule().name.isprintable()
        assert isinstance(self.rule().uses_weights, bool)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_the_adapter_keeps_its_form_and_the_told_weights_are_shares(self, seed: int) -> None:
        rows, weights = drawn(seed)
        result = self.aggregate(np.zeros(COLUMNS), parts(rows, weights))
        assert result.adapter.form == adapter(rows[0]).form
        assert isinstance(result.state, ServerState)
        if result.weights is not None:
            assert len(result.weights) == CLIENTS
            assert min(result.weights) >= 0
            assert sum(result.weights) <= 1 + 1e-9

    @pytest.mark.parametrize("seed", SEEDS)
    def test_the_order_of_clients_changes_nothing_but_rounding(self, seed: int) -> None:
        rows, weights = drawn(seed)
        order = np.random.default_rng(seed).permutation(CLIENTS)
        one = self.aggregate(np.zeros(COLUMNS), parts(rows, weights))
        other = self.aggregate(np.zeros(COLUMNS), parts(rows[order], weights[order]))
        close(values(one.adapter), values(other.adapter), rows)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_updates_that_change_nothing_move_nothing(self, seed: int) -> None:
        row = drawn(seed)[0][0].astype(np.float32).astype(np.float64)
        result = self.aggregate(row, parts(np.repeat(row[None], CLIENTS, axis=0)))
        assert np.array_equal(values(result.adapter), row)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_updates_that_are_all_the_same_are_the_result(self, seed: int) -> None:
        if not self.keeps_equal_updates:
            return
        rows, weights = drawn(seed)
        same = np.repeat(rows[:1], CLIENTS, axis=0)
        close(values(self.aggregate(np.zeros(COLUMNS), parts(same, weights)).adapter), same[0], same)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_the_weights_change_the_result_exactly_where_it_takes_them(self, seed: int) -> None:
        rows, weights = drawn(seed)
        equal, other = (self.aggregate(np.zeros(COLUMNS), parts(rows, shares)) for shares in (None, weights))
        assert (equal.adapter.sha256 != other.adapter.sha256) == self.rule().uses_weights

    @pytest.mark.parametrize("size", [-1e8, -10.0, 10.0, 1e4])
    def test_bad_updates_do_not_take_the_adapter_away(self, size: float) -> None:
        """It moves no farther than three times the farthest honest update, whatever the bad ones send."""
        rows, _ = drawn(1)
        bad = CLIENTS - self.withstands
        farthest = np.linalg.norm(rows[:bad], axis=1).max()
        rows[bad:] *= size
        moved = np.linalg.norm(values(self.aggregate(np.zeros(COLUMNS), parts(rows)).adapter))
        assert moved <= 3 * farthest or not self.withstands

    @pytest.mark.parametrize("seed", range(2))
    def test_the_same_bytes_whatever_the_threads(self, seed: int) -> None:
        draw, threads = np.random.default_rng(seed), torch.get_num_threads()
        updates = Parts((1 / CLIENTS,) * CLIENTS, [adapter(row) for row in draw.normal(size=(CLIENTS, 20_000))])
        start, found = adapter(np.zeros(20_000)), set()
        try:
            for count in (1, 2):
                torch.set_num_threads(count)
                result = self.rule().aggregate(start, updates, self.rule().initial(start))
                found.add((result.adapter.sha256, result.state.sha256, result.weights))
        finally:
            torch.set_num_threads(threads)
        assert len(found) == 1

    @pytest.mark.parametrize("seed", SEEDS)
    def test_a_run_that_goes_on_from_a_file_is_the_run_that_never_stopped(self, seed: int) -> None:
        rule = self.rule()
        now = resumed = adapter(np.zeros(COLUMNS))
        state, stored = rule.initial(now), bytearray(rule.initial(now).to_bytes())
        for number in range(3):
            updates = parts(*drawn(seed + number))
            result = rule.aggregate(now, updates, state)
            again = self.rule().aggregate(resumed, updates, server_state_from_bytes(stored))
            now, state, resumed, stored = result.adapter, result.state, again.adapter, bytearray(again.state.to_bytes())
        assert now.to_bytes() == resumed.to_bytes()
        assert state.to_bytes() == stored

    def test_an_update_of_another_form_is_refused(self) -> None:
        updates = [adapter(np.ones(COLUMNS))] * (CLIENTS - 1) + [adapter(np.ones(COLUMNS + 1))]
        with pytest.raises(AdapterError):
            self.aggregate(np.zeros(COLUMNS), Parts((1 / CLIENTS,) * CLIENTS, updates))

    def test_it_says_beforehand_whether_so_many_updates_will_do(self) -> None:
        for count in range(1, CLIENTS + 1):
            rows, weights = drawn(count, count)
            said = _refusal(partial(self.rule().require, count))
            assert said == _refusal(partial(self.aggregate, np.zeros(COLUMNS), parts(rows, weights)))
        assert said is None

    def test_a_federation_runs_by_it_and_ends_the_same_each_time(self) -> None:
        fed = federation(clients=CLIENTS, aggregation=self.rule())
        ends = [
            [result.record.adapter_sha256 for result in fed.run(START, InProcessTransport(ToyLearner(), shard))]
            for _ in range(2)
        ]
        assert ends[0] == ends[1]
        assert len(ends[0]) == 4


def _refusal(call: Callable[[], object]) -> str | None:
    """The refusal of a number of updates; None where they will do."""
    try:
        call()
    except FederationError as error:
        return str(error)
    return None
