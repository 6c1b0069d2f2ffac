"""Every rule over middle matrices is that rule of plain adapters of the same numbers; the factors stay to the bit."""

import pytest
import torch

from fccl.adapters.adapter import Adapter
from fccl.adapters.middle import fixed_sha256, middle_form, moving, with_middles
from fccl.aggregation.lora_mean import lora_error
from fccl.aggregation.of_middle import OfMiddle
from fccl.aggregation.protocol import Parts
from fccl.aggregation.rules import RULES, aggregation
from fccl.testing.lora_toy import factors

FORM = with_middles(factors(0).form)
WEIGHTS = (0.1, 0.2, 0.3, 0.25, 0.15)


def squares(seed):
    draw = torch.Generator().manual_seed(seed)
    return Adapter({name: torch.randn(shape, generator=draw) for name, shape in middle_form(FORM).shapes.items()})


@pytest.mark.parametrize("name", sorted(set(RULES) - {"scaffold"}))
def test_a_rule_is_of_the_middle_matrices_alone(name):
    rule, plain = aggregation(name, "fed_sb", 3), aggregation(name)
    before = Adapter({**factors(0).tensors, **squares(0).tensors})
    parts = Parts(WEIGHTS, [squares(seed) for seed in range(1, 6)])
    rule.require(5)
    made = rule.aggregate(before, parts, rule.initial(before))
    expected = plain.aggregate(moving(before), parts, plain.initial(moving(before)))
    assert moving(made.adapter).sha256 == expected.adapter.sha256
    assert (made.state.sha256, made.weights) == (expected.state.sha256, expected.weights)
    assert fixed_sha256(made.adapter) == fixed_sha256(before)
    assert (rule.name, rule.uses_weights) == (plain.name, plain.uses_weights)


def test_its_mean_is_exact_so_no_error_is_measured():
    rule, before = OfMiddle(aggregation("fedavg")), Adapter({**factors(0).tensors, **squares(0).tensors})
    parts = Parts((0.5, 0.5), [squares(1), squares(2)])
    assert lora_error(rule, before, parts, rule.aggregate(before, parts, rule.initial(before))) is None
