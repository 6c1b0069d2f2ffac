import pytest

from fccl.errors import SettingsError
from fccl.model.loading import ENGINES, Models, load_model
from fccl.training.engines import LEARNERS, learner_for
from fccl.training.learner import GenericLearner


def test_every_engine_has_a_model_and_a_learner():
    assert ENGINES.keys() == LEARNERS.keys()


def test_an_engine_that_is_not_there_is_one_line_that_names_those_that_are(tiny_model):
    for ask in (lambda: Models("abacus"), lambda: load_model(tiny_model.spec, "abacus")):
        with pytest.raises(SettingsError, match="'abacus' is no engine") as caught:
            ask()
        assert "generic" in caught.value.hint


def test_the_learner_trains_the_very_model_that_the_application_holds(tiny_model):
    models = Models.holding(tiny_model)
    learner = learner_for(models, (2,))
    assert isinstance(learner, GenericLearner)
    assert models.of(tiny_model.spec) is learner.models.of(tiny_model.spec) is tiny_model


def test_a_model_is_loaded_once(tiny_model):
    models, narrow = Models.holding(tiny_model), tiny_model.spec.of_rank(1)
    assert models.of(narrow) is models.of(narrow)
    assert models.of(narrow) is not tiny_model
