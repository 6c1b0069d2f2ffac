import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.contribution.adam import Adam, softmax, through_softmax
from tests.examples import few

numbers = st.lists(st.floats(-3, 3), min_size=3, max_size=3)


@settings(max_examples=few(30), deadline=None)
@given(numbers, st.floats(1e-3, 1.0), st.sampled_from([0.5, 0.9]), st.integers(1, 12))
def test_it_takes_the_steps_of_torch(target, rate, beta, steps):
    ours, theirs = np.zeros(3), torch.zeros(3, dtype=torch.float64, requires_grad=True)
    adam, reference = Adam(rate, beta), torch.optim.Adam([theirs], lr=rate, betas=(beta, 0.999))
    for _ in range(steps):
        ours = ours + adam.step(2 * (ours - target))
        reference.zero_grad()
        (theirs - torch.tensor(target, dtype=torch.float64)).square().sum().backward()
        reference.step()
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-6, atol=1e-9)


@settings(max_examples=few(30), deadline=None)
@given(numbers, numbers)
def test_the_gradient_through_the_softmax_is_that_of_autograd(logits, slopes):
    leaf = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    (torch.softmax(leaf, 0) @ torch.tensor(slopes, dtype=torch.float64)).backward()
    np.testing.assert_allclose(
        through_softmax(softmax(np.array(logits)), np.array(slopes)), leaf.grad.numpy(), atol=1e-12
    )
