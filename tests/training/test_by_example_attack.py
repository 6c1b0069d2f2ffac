"""An empirical check of DP-SGD: the best test there is between two neighbours, on all noised steps, stays within ε.

Two clients differ in one record, whose gradient is as long as the clip and which stands alone in its direction. The
adversary sees every step. Its likelihood ratio is a product over the steps, of a normal density against the mixture of
two that the secret draw makes (Neyman and Pearson 1933).
"""

import math

import numpy as np
import pytest
import torch
from scipy.stats import beta

from fccl.model.clipping import clipped
from fccl.model.encoding import Encoded
from fccl.model.objectives import objective_for
from fccl.privacy.accountant import Steps, epsilon_of_steps
from fccl.privacy.sampling import ExampleSampling
from fccl.privacy.secrets import Secret
from fccl.privacy.spec import PrivacySpec
from fccl.specs import TrainSpec
from fccl.training.by_example import BATCH, NoisedGradients

TRIALS, DELTA, EXAMPLES = 1500, 1e-2, 8
TRAIN = TrainSpec(epochs=2, learning_rate=0.1, batch_size=4, warmup=0, max_grad_norm=1)
SAMPLING = ExampleSampling.of(TRAIN, EXAMPLES)
CANARY = 99


class OneNumber:
    """A model of one factor. The canary's gradient is long, and the others have none."""

    device = torch.device("cpu")

    def clipped_sum(self, examples, losses, clip, factors):
        rows = [[7.0 if responses[0].ids[-1] == CANARY else 0.0] for responses in examples]
        return {"w": clipped(torch.tensor(rows), clip)}


def steps_seen(spec, last, trial):
    """The noised gradients of all steps of one training, whose last record is the canary or another one."""
    rows = [(Encoded((1, 2, 3), 2, False),)] * (EXAMPLES - 1) + [(Encoded((1, 2, last), 2, False),)]
    secret = Secret(trial.to_bytes(31, "big") + bytes([last]))
    loss = NoisedGradients(
        OneNumber(), objective_for("sft", rows), {"w": torch.zeros(1)}, spec, TRAIN, lambda *names: secret.draws(*names)
    )
    batches = SAMPLING.batches(EXAMPLES, lambda step: secret.draws(BATCH, step))
    return [float(loss.at(batch).gradient["w"]) * TRAIN.batch_size / spec.clip for batch in batches]


def statistic(spec, seen):
    """The log likelihood ratio of a training with the canary and of one without, as an adversary computes it."""
    x, q = np.array(seen), SAMPLING.rate
    return float(np.log(1 - q + q * np.exp((2 * x - 1) / (2 * spec.noise**2))).sum())


def lower_bound(spec):
    """The ε that the samples prove with 99.9 % confidence at δ, in both directions."""
    one, other = (
        np.array([statistic(spec, steps_seen(spec, last, trial)) for trial in range(TRIALS)]) for last in (CANARY, 3)
    )
    return max(proved(one, other), proved(-other, -one))


def proved(one, other):
    best = 0.0
    for threshold in np.quantile(one, np.linspace(0.02, 0.98, 30)):
        hits, alarms = int((one > threshold).sum()), int((other > threshold).sum())
        least = beta.ppf(0.001, hits, TRIALS - hits + 1) if hits else 0.0
        most = beta.ppf(0.999, alarms + 1, TRIALS - alarms) if alarms < TRIALS else 1.0
        if least > DELTA:
            best = max(best, math.log((least - DELTA) / most))
    return best


def said(noise):
    return epsilon_of_steps([Steps(noise=noise, rate=SAMPLING.rate, count=SAMPLING.steps)], DELTA)


def spec_of(noise):
    return PrivacySpec(where="client", unit="example", clip=0.5, noise=noise, epsilon=1e9, delta=DELTA)


@pytest.mark.slow
def test_no_test_tells_two_neighbours_apart_better_than_epsilon_says():
    assert 0.2 * said(1.0) < lower_bound(spec_of(1.0)) <= said(1.0), "within the bound, and a test with some power"


@pytest.mark.slow
def test_the_same_test_finds_noise_that_is_a_third_of_what_is_said():
    less = spec_of(1.0 / 3)
    assert lower_bound(less) > said(1.0)
