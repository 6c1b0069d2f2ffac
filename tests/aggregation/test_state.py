import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fccl.adapters.adapter import Adapter
from fccl.adapters.torch_files import torch_bytes
from fccl.aggregation.state import ServerState, server_state_from_bytes
from fccl.errors import FederationError

tensors = arrays.arrays("float64", arrays.array_shapes(max_dims=2, max_side=4), elements=st.floats(-1e300, 1e300)).map(
    torch.from_numpy
)
names = st.text(min_size=1, max_size=5).filter(str.isprintable)
states = st.builds(ServerState, st.dictionaries(names, tensors, max_size=3))


@given(states)
def test_bytes_and_back_is_the_same_state(state):
    again = server_state_from_bytes(bytearray(state.to_bytes()))
    assert again.sha256 == state.sha256
    assert again.to_bytes() == state.to_bytes()


@given(states)
def test_the_order_of_names_does_not_matter(state):
    assert ServerState(dict(reversed(state.tensors.items()))).sha256 == state.sha256


def test_the_hash_tells_states_apart():
    one = torch.ones(2, dtype=torch.float64)
    states = [
        ServerState(),
        ServerState({"m": one}),
        ServerState({"v": one}),
        ServerState({"m": one * 2}),
        ServerState({"m": one[None]}),
    ]
    assert len({state.sha256 for state in states}) == len(states)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({"m": torch.ones(2)}, "the server state: m is torch.float32 on cpu, expected torch.float64"),
        ({"m": [1.0]}, "m is not a dense tensor"),
        ({1: torch.ones(2, dtype=torch.float64)}, "1 is no name of a tensor"),
        ({"m": torch.tensor([float("nan")], dtype=torch.float64)}, "not finite"),
    ],
)
def test_is_built_valid_or_not_built(content, what):
    with pytest.raises(FederationError, match=what):
        ServerState(content)


def test_the_state_of_another_rule_is_refused():
    state = ServerState({"momentum": torch.zeros(3, dtype=torch.float64)})
    assert state.vector("momentum", 3).shape == (3,)
    for name, length in (("second_moment", 3), ("momentum", 4)):
        with pytest.raises(FederationError, match=f"no {name} of {length} numbers"):
            state.vector(name, length)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a file",
        torch_bytes({"m": torch.ones(2, dtype=torch.float64)}),
        Adapter({"m": torch.ones(2)}).to_bytes(),
        ServerState().to_bytes()[:-4],
    ],
    ids=["empty", "text", "of torch", "an adapter", "cut"],
)
def test_anything_else_is_refused(content):
    with pytest.raises(FederationError, match="it "):
        server_state_from_bytes(bytearray(content), "it")
