import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.errors import UpdateRejected
from fccl.messages import EvaluateTask, FitTask, OwnCorrection
from fccl.privacy.cohort import Cohort, MaskKeys, SecureSpec
from fccl.privacy.fixed_point import FixedPoint
from fccl.privacy.spec import PrivacySpec
from fccl.specs import PreferenceSpec
from fccl.testing.toy import MODEL, TRAIN, adapter

SFT = FitTask("run", 2, "sft", adapter(1.0, 2.0, 3.0), None, MODEL, TRAIN, 11)
PRIVACY = PrivacySpec(where="client", clip=0.5, noise=4.0, epsilon=8.0, delta=1e-5)
KEYS = tuple(MaskKeys(client_id=client, masks=f"{client:064x}", shares=f"{client + 9:064x}") for client in (0, 2))
SECURE = SecureSpec(
    cohort=Cohort.of("f" * 32, KEYS), members=(0, 2), fixed=FixedPoint.of(bound=1.0, most=1, clients=2), clip=0.0
)
VA = FitTask(
    "run", 3, "va", adapter(1.0, 2.0, 3.0), adapter(4.0, 5.0, 6.0), MODEL, TRAIN, 11, privacy=PRIVACY, secure=SECURE
)
EVALUATE = EvaluateTask(
    "run", 3, "va", adapter(1.0, 2.0, 3.0), adapter(4.0, 5.0, 6.0), MODEL, 4, PreferenceSpec(beta=0.5), 2
)
FREE = FitTask("run", 3, "va", adapter(1.0, 2.0), None, MODEL, TRAIN.model_copy(update={"preference_loss": "cpo"}), 11)
REQUESTS = [SFT, VA, FREE, EVALUATE]


def again(request, **changes):
    """As it arrives: JSON, and the adapters."""
    return type(request).from_terms(json.loads(json.dumps(request.terms())) | changes, request.adapters())


@pytest.mark.parametrize("request_", REQUESTS)
def test_terms_and_adapters_are_the_whole_request(request_):
    found = again(request_)
    for field in dataclasses.fields(request_):
        assert getattr(found, field.name) == getattr(request_, field.name), field.name
    assert (found.kind, found.step) == (request_.kind, request_.step)


NOT_SPELT = {"adapter", "reference", "corrections", "coded", "centre"}  # adapters, or what never travels


def test_terms_name_every_field_but_the_adapters():
    """A field that is added to a task and forgotten in its terms would be lost on the way."""
    for kind in (FitTask, EvaluateTask):
        fields = {field.name for field in dataclasses.fields(kind)} - NOT_SPELT
        one = VA if kind is FitTask else EVALUATE
        assert set(one.terms()) == fields | {"kind", "step"}


def test_a_correction_is_that_of_the_client_that_the_task_was_sent_to():
    asked = dataclasses.replace(SFT, corrections=OwnCorrection(adapter(7.0, 8.0, 9.0)))
    assert asked.terms() == SFT.terms()
    found = FitTask.from_terms(asked.terms(), {**asked.adapters(), "correction": asked.corrections.of(2)})
    assert found.corrections.of(2).sha256 == adapter(7.0, 8.0, 9.0).sha256


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "other"},
        {"kind": None},
        {"step": 1},
        {"round": "2"},
        {"round": -1},
        {"run_id": ""},
        {"phase": "done"},
        {"model": {}},
        {"threads": True},
        {"more": 1},
        {"model": float("nan")},
    ],
)
def test_terms_are_read_strictly(request_, changes):
    with pytest.raises(UpdateRejected) as error:
        type(request_).from_terms(request_.terms() | changes, request_.adapters())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("request_", REQUESTS)
def test_a_missing_term_is_refused(request_):
    for name in ("kind", "step", "run_id", "round", "phase", "model"):
        terms = {key: value for key, value in request_.terms().items() if key != name}
        with pytest.raises(UpdateRejected, match=name):
            type(request_).from_terms(terms, request_.adapters())


def test_adapters_are_just_those_of_the_phase():
    for kind, terms, adapters in (
        (FitTask, SFT.terms(), VA.adapters()),
        (FitTask, VA.terms(), SFT.adapters()),
        (FitTask, SFT.terms(), {}),
        (FitTask, SFT.terms(), {**SFT.adapters(), "other": adapter()}),
        (EvaluateTask, EVALUATE.terms(), SFT.adapters()),
        (EvaluateTask, EVALUATE.terms(), {**EVALUATE.adapters(), "correction": adapter()}),
    ):
        with pytest.raises(UpdateRejected, match="comes with adapters"):
            kind.from_terms(terms, adapters)


def test_a_reference_of_another_form_is_refused():
    adapters = {"adapter": adapter(1.0), "reference": adapter(1.0, 2.0)}
    with pytest.raises(UpdateRejected, match="reference"):
        FitTask.from_terms(VA.terms(), adapters)


SAID = st.none() | st.booleans() | st.floats() | st.text(max_size=5)


@given(st.dictionaries(st.sampled_from(["kind", "step", "run_id", "round", "phase", "model", "train", "x"]), SAID))
def test_whatever_is_said_a_request_is_read_or_refused(said):
    for request in REQUESTS:
        with pytest.raises(UpdateRejected):
            type(request).from_terms(said, request.adapters())


@pytest.mark.parametrize("request_", REQUESTS)
def test_a_task_carries_the_precision_of_the_base_and_means_fp32_where_it_says_none(request_):
    assert "base_precision" not in request_.terms()["model"]
    model = request_.model.model_copy(update={"base_precision": "int8"})
    asked = dataclasses.replace(request_, model=model)
    assert asked.terms()["model"]["base_precision"] == "int8"
    assert (again(asked).model.base_precision, again(request_).model.base_precision) == ("int8", "fp32")


def test_a_precision_that_this_version_does_not_know_is_refused():
    with pytest.raises(UpdateRejected, match="base_precision"):
        again(SFT, model=SFT.terms()["model"] | {"base_precision": "fp4"})
