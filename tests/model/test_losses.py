import math

import pytest
import torch

from fccl.model import losses
from fccl.model.losses import response_nll, sequence_log_probs, target_log_probs, target_log_probs_of


def test_uniform_logits_give_log_of_the_vocabulary():
    assert target_log_probs(torch.zeros(3, 50), torch.tensor([0, 7, 49])).tolist() == pytest.approx([-math.log(50)] * 3)


def test_nll_is_the_mean_over_response_tokens_only():
    log_probs = torch.tensor([[-1.0, -2.0, -9.0], [-4.0, -9.0, -9.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert float(response_nll(log_probs, mask)) == pytest.approx((1 + 2 + 4) / 3)
    assert sequence_log_probs(log_probs, mask).tolist() == [-3.0, -4.0]
    assert float(response_nll(log_probs, mask & False)) == 0.0


@pytest.mark.parametrize("rows", [1, 3, 16, 17, 100])
def test_logits_in_chunks_give_the_same_values_and_gradients_and_are_not_kept(rows, monkeypatch):
    draw = torch.Generator().manual_seed(rows)
    head = torch.nn.Linear(8, 50, bias=False).requires_grad_(False)
    hidden, targets = torch.randn(17, 8, generator=draw), torch.randint(50, (17,), generator=draw)
    weights = torch.randn(17, generator=draw)
    whole = hidden.clone().requires_grad_(True)
    (weights * target_log_probs(head(whole), targets)).sum().backward()
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", rows * 50)
    kept = []
    chunked = hidden.clone().requires_grad_(True)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tensor.numel()) or tensor, lambda tensor: tensor
    ):
        found = target_log_probs_of(head, chunked, targets, 50)
    (weights * found).sum().backward()
    torch.testing.assert_close(found, target_log_probs(head(hidden), targets), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(chunked.grad, whole.grad, rtol=1e-5, atol=1e-6)
    assert (max(kept, default=0) < 17 * 50) == (rows < 17)
