from typing import get_args

import pytest
from pydantic import ValidationError

from fccl.model.loading import ENGINES, Models
from fccl.specs import Engine
from fccl.training.engines import learner_for
from fccl.training.learner import GenericLearner


def test_every_engine_that_a_spec_may_name_is_there():
    assert ENGINES.keys() == set(get_args(Engine))


def test_a_spec_of_an_engine_that_is_not_there_cannot_be_built(tiny_model):
    with pytest.raises(ValidationError, match="abacus"):
        type(tiny_model.spec).model_validate(tiny_model.spec.model_dump() | {"engine": "abacus"})


def test_a_model_computes_with_the_engine_that_its_spec_names(tiny_model):
    other = tiny_model.spec.model_copy(update={"engine": "gpt2"})
    assert Models().of(other).engine == "gpt2"


def test_the_learner_trains_the_very_model_that_the_application_holds(tiny_model):
    models = Models.holding(tiny_model)
    learner = learner_for(models, (2,))
    assert isinstance(learner, GenericLearner)
    assert models.of(tiny_model.spec) is learner.models.of(tiny_model.spec) is tiny_model


def test_a_model_is_loaded_once(tiny_model):
    models, narrow = Models.holding(tiny_model), tiny_model.spec.of_rank(1)
    assert models.of(narrow) is models.of(narrow)
    assert models.of(narrow) is not tiny_model
