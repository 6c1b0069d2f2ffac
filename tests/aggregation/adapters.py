"""Small adapters for the tests of the aggregation rules."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fccl.adapters.adapter import Adapter
from fccl.aggregation.protocol import Parts

SPLIT = 2  # the first values of a vector are the tensor `a`, the others a column `b`


def adapter(values):
    """Of a vector of at least three values."""
    values = torch.from_numpy(np.array(values, dtype=np.float32))
    return Adapter({"a": values[:SPLIT].clone(), "b": values[SPLIT:, None].clone()})


def vector(adapter):
    """The inverse, in float64."""
    return np.concatenate([tensor.numpy().ravel() for tensor in adapter.tensors.values()]).astype(np.float64)


def parts(matrix, weights=None):
    """Of a row for every client; equal weights unless some are given."""
    weights = np.ones(len(matrix)) if weights is None else np.asarray(weights, dtype=np.float64)
    return Parts(tuple(weights / weights.sum()), tuple(adapter(row) for row in matrix))


ANY_CLIENTS, ANY_COLUMNS = st.integers(1, 9), st.integers(3, 6)


def matrices(clients=ANY_CLIENTS, columns=ANY_COLUMNS):
    """One row a client, float32, of moderate size."""
    values = st.floats(-100, 100, width=32, allow_subnormal=False)
    return st.tuples(clients, columns).flatmap(lambda shape: arrays.arrays(np.float32, shape, elements=values))


def weights_for(matrix, seed):
    """Random weights, none of them zero."""
    return np.random.default_rng(seed).uniform(0.1, 1.0, len(matrix))
