"""Models that are evaluated side by side, in processes of their own."""

import pickle
from types import SimpleNamespace

import pytest

from fccl.errors import FederationError
from fccl.evaluation.beside import EvaluatorMaker, side_by_side_in
from fccl.evaluation.suite import ToEvaluate, one_by_one
from fccl.library.side_by_side import WorkplaceMaker
from fccl.model.scoring import no_progress
from fccl.paths import DataPaths, LogPaths
from fccl.processes.pool import Pool
from tests.processes.workers import Deadly


@pytest.fixture
def subjects(an_adapter, options):
    without_texts = options.model_copy(update={"gen_samples": 0})
    named = {"base": (None, options), "SFT": (an_adapter(1), options), "client 0": (an_adapter(2), without_texts)}
    return [ToEvaluate(name, *given) for name, given in named.items()]


def require_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.sft.nll.tobytes() == other.sft.nll.tobytes()
        assert one.pairs.margins.tobytes() == other.pairs.margins.tobytes()
        assert one.exact.tobytes() == other.exact.tobytes()
        assert (one.name, one.generations, one.truncated) == (other.name, other.generations, other.truncated)


@pytest.mark.parametrize("of_a_run", [True, False])
def test_the_object_of_a_process_evaluates_as_this_process_does(tiny_model, subjects, split, tmp_path, of_a_run):
    """Made by the maker that a process is sent, with what goes to a process and comes back as it travels there."""
    folders = DataPaths(tmp_path), LogPaths(tmp_path)
    alone = EvaluatorMaker(tiny_model.spec, threads=1)
    maker = WorkplaceMaker(*folders, tiny_model.spec, (), 0, threads=1) if of_a_run else alone
    evaluator, heard = pickle.loads(pickle.dumps(maker))(), []
    asked = pickle.loads(pickle.dumps([(subject, split) for subject in subjects]))
    found = [pickle.loads(pickle.dumps(evaluator.evaluate(*each, heard.append))) for each in asked]
    expected = one_by_one(tiny_model, threads=1)(subjects, split, lambda name: no_progress)
    require_same(found, expected)
    assert [done for done, total in heard if done == total]


@pytest.mark.slow
def test_the_figures_are_those_of_one_process_with_as_many_threads(tiny_model, subjects, split):
    heard = []

    def listen(name):
        return lambda done, total: heard.append((name, done, total))

    with Pool(EvaluatorMaker(tiny_model.spec, threads=1), 2) as pool:
        pool.start(2)
        found = side_by_side_in(pool)(subjects, split, listen)
    expected = one_by_one(tiny_model, threads=1)(subjects, split, lambda name: no_progress)
    require_same(found, expected)
    assert [(one.adapter, one.split) for one in found] == [(other.adapter, other.split) for other in expected]
    assert {name for name, done, total in heard if done == total} == {"base", "SFT", "client 0"}


def test_a_model_that_ends_two_processes_is_one_error_with_a_hint():
    subjects = [SimpleNamespace(name=name) for name in ("good", "bad")]  # the process need not load torch for them
    with Pool(Deadly, 2) as pool:
        pool.start(2)
        with pytest.raises(FederationError, match="the process that evaluated bad ended twice") as error:
            side_by_side_in(pool)(subjects, None, lambda name: no_progress)
    assert "CLIENT_PROCESSES=1" in error.value.hint
