"""What a client holds to before an update leaves, over the toy learner."""

import math
from dataclasses import dataclass, replace

import pytest
import torch

from fccl.adapters.adapter import Adapter
from fccl.errors import FcclError, PhaseDeclined, SettingsError
from fccl.messages import ClientFailure, FitTask
from fccl.privacy.accountant import Steps, accounting_of, epsilon_of_steps
from fccl.privacy.secrets import Secret, secret_of
from fccl.privacy.spec import PrivacySpec
from fccl.privacy.spent import Spent
from fccl.records.run import WITHHELD
from fccl.testing.toy import MODEL, TRAIN, ToyLearner, adapter, shard
from fccl.training.private import PURPOSE, PrivateLearner

SPEC = PrivacySpec(where="client", clip=0.5, noise=4.0, epsilon=8.0, delta=1e-5)


def task(privacy=SPEC, number=0, **changes):
    asked = FitTask("run", number, "sft", adapter(1.0, 2.0, 3.0), None, MODEL, TRAIN, seed=7, privacy=privacy)
    return replace(asked, **changes)


@pytest.fixture
def private(tmp_path):
    """Makes the learner of a process; all of them have the same private folders."""
    return lambda learner=None, **changes: PrivateLearner(
        learner or ToyLearner(), lambda client: tmp_path / f"client_{client}", **changes
    )


def fit(learner, asked=None, client=2):
    return learner.fit(asked or task(), shard(client), lambda status: None)


def spent(tmp_path, client=2):
    return Spent(tmp_path / f"client_{client}").releases


def test_without_differential_privacy_the_update_is_the_learners_and_nothing_is_written(private, tmp_path):
    asked = task(privacy=None)
    mine, theirs = fit(private(), asked), ToyLearner().fit(asked, shard(2), lambda status: None)
    assert mine.adapter.load().sha256 == theirs.adapter.load().sha256
    assert mine.contribution == theirs.contribution
    assert list(tmp_path.iterdir()) == []


def test_the_update_is_the_clipped_change_with_noise_of_the_secret(private, tmp_path):
    update = fit(private())
    start, trained = (
        task().adapter.tensors["w"].double(),
        fit(private(), task(None)).adapter.load().tensors["w"].double(),
    )
    change = trained - start
    clipped = change * min(1.0, 0.5 / float(change.norm()))
    (release,) = spent(tmp_path)
    secret, _ = secret_of(tmp_path / "client_2")
    noise = 2.0 * torch.from_numpy(secret.draws("run", 0, PURPOSE, release.tag).normals(3))
    assert release.secret == secret.name
    assert update.adapter.load().tensors["w"].tolist() == pytest.approx((start + clipped + noise).tolist(), abs=1e-5)


def test_an_answer_that_is_repeated_after_a_kill_has_the_same_bytes_and_is_spent_once(private, tmp_path):
    first, again = fit(private()), fit(private())
    assert first.adapter.load().to_bytes() == again.adapter.load().to_bytes()
    assert len(spent(tmp_path)) == 1


def test_another_question_gets_other_noise_though_it_is_of_the_same_round(private, tmp_path):
    """Else a server could ask twice and subtract."""
    one = fit(private())
    nudged = task(adapter=adapter(1.0, 2.0, 3.0 + 1e-6))
    other = fit(private(), nudged)
    assert len(spent(tmp_path)) == 2
    assert one.adapter.load().distance(other.adapter.load()) > 0.1


def test_other_data_gets_other_noise_though_the_question_is_the_same(private, tmp_path):
    one = fit(private())
    moved = replace(ToyLearner().fit(task(None), shard(2), lambda status: None), adapter=adapter(0.9, 2.0, 3.0))
    assert private().released(task(), moved).adapter.load().distance(one.adapter.load()) > 0.1
    assert len({release.tag for release in spent(tmp_path)}) == len(spent(tmp_path)) == 2


def test_a_lost_secret_counts_the_open_round_as_spent(private, tmp_path):
    one = fit(private())
    (tmp_path / "client_2" / "secret").unlink()
    other = fit(private())
    assert one.adapter.load().distance(other.adapter.load()) > 0.1
    assert len({release.secret for release in spent(tmp_path)}) == len(spent(tmp_path)) == 2


def test_all_that_is_public_does_not_reproduce_the_noise(tmp_path):
    """Two owners whose settings, seed, task and data are the same have nothing in common, and no secret made of what
    travels gives the noise of either.
    """
    updates = [
        fit(PrivateLearner(ToyLearner(), lambda client, owner=owner: tmp_path / owner / str(client)))
        for owner in ("one", "other")
    ]
    apart = updates[0].adapter.load().vector - updates[1].adapter.load().vector
    assert not bool((apart == 0).any())
    (release,) = Spent(tmp_path / "one" / "2").releases
    public = [task().adapter.sha256, release.tag, release.secret, repr(task().terms()), str(task().seed)]
    guesses = [Secret(bytes(32)), *(Secret(text.encode()[:32].ljust(32, b"\0")) for text in public)]
    true, _ = secret_of(tmp_path / "one" / "2")
    noise = true.draws("run", 0, PURPOSE, release.tag).normals(3)
    for guess in guesses:
        assert not (guess.draws("run", 0, PURPOSE, release.tag).normals(3) == noise).any()


def test_no_figure_of_the_training_leaves(private):
    heard = []
    update = private().fit(task(), shard(2), heard.append)
    assert update.contribution == WITHHELD
    assert (update.report.steps, update.report.tokens, update.report.first_loss) == (0, 0, None)
    assert [(status.state, status.loss, status.steps) for status in heard] == [("training", None, 0), ("done", None, 0)]


def test_with_noise_at_the_server_the_change_leaves_as_it_is_and_no_figure_does(private, tmp_path):
    update = fit(private(), task(SPEC.model_copy(update={"where": "server"})))
    assert update.contribution == WITHHELD
    assert update.adapter.load().sha256 == fit(private(), task(None)).adapter.load().sha256
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("privacy", [None, SPEC])
def test_a_shard_that_is_too_small_declines_with_the_reason_and_not_its_size(private, privacy):
    with pytest.raises(PhaseDeclined, match="declines FedIT: it has fewer than MIN_SHARD=4 examples"):
        fit(private(min_shard=4), task(privacy))
    assert fit(private(min_shard=3), task(privacy)).client_id == 2


@pytest.mark.parametrize(
    "asked", [None, SPEC.model_copy(update={"noise": 3.9}), SPEC.model_copy(update={"where": "server"})]
)
def test_a_client_that_insists_on_more_refuses_the_task(private, tmp_path, asked):
    with pytest.raises(SettingsError, match=r"this client's DP_WHERE=client, DP_CLIP=0\.5, DP_NOISE=4"):
        fit(private(own=SPEC), task(asked))
    assert list(tmp_path.iterdir()) == []


def test_a_client_declines_before_its_own_budget_is_passed_over_all_runs(private, tmp_path):
    budget = accounting_of(SPEC, 1, 1).epsilon(2)
    own = SPEC.model_copy(update={"epsilon": budget})
    for number in range(2):
        fit(private(own=own), task(SPEC, number))
    with pytest.raises(PhaseDeclined, match="an update more would pass its budget"):
        fit(private(own=own), task(SPEC, 2, run_id="another run"))
    assert len(spent(tmp_path)) == 2
    fit(private(own=own), task(SPEC, 1))  # again what has left already


@dataclass
class Together(ToyLearner):
    """Takes several clients at once."""

    def fit_together(self, asked, client_ids, load_shard, on_status):
        return [self.fit(asked, load_shard(client), on_status) for client in client_ids]


def test_clients_that_train_together_have_the_bytes_of_each_alone(private, tmp_path):
    alone = [fit(private(), client=client) for client in (2, 3)]
    found = private(Together(), min_shard=3).fit_together(task(), [1, 2, 3], shard, lambda status: None)
    assert isinstance(found[0], ClientFailure)
    assert found[0].declines
    assert [each.adapter.load().sha256 for each in found[1:]] == [each.adapter.load().sha256 for each in alone]
    assert len(spent(tmp_path, 3)) == 1


def test_a_learner_of_one_client_at_a_time_is_asked_one_after_another(private):
    found = private(ToyLearner(broken=frozenset({1}))).fit_together(task(), [1, 2], shard, lambda status: None)
    assert [type(each).__name__ for each in found] == ["ClientFailure", "ClientUpdate"]


def test_frozen_factors_stay_to_the_bit_and_a_lower_rank_is_noised_in_its_own_form(private):
    start = Adapter({"x.lora_A.weight": torch.ones(2, 3), "x.lora_B.weight": torch.ones(4, 2)})
    trained = Adapter({name: tensor + 0.1 for name, tensor in start.tensors.items()})
    frozen = Adapter({**trained.tensors, "x.lora_A.weight": start.tensors["x.lora_A.weight"]})
    asked = task(adapter=start, model=MODEL.of_rank(2), train=TRAIN.model_copy(update={"freeze_a": True}))
    update = ToyLearner().fit(task(None), shard(2), lambda status: None)
    noisy = private().released(asked, replace(update, adapter=frozen)).adapter.load().tensors
    assert torch.equal(noisy["x.lora_A.weight"], start.tensors["x.lora_A.weight"])
    assert not bool((noisy["x.lora_B.weight"] == 1.1).any())
    narrow = Adapter({"x.lora_A.weight": torch.ones(1, 3), "x.lora_B.weight": torch.ones(4, 1)})
    lower = task(adapter=start, model=MODEL.of_rank(2), train=TRAIN.model_copy(update={"lower_ranks": True}))
    assert private().released(lower, replace(update, adapter=narrow)).adapter.load().form == narrow.form


def test_errors_of_the_learner_are_its_own(private):
    with pytest.raises(FcclError, match="not finite"):
        fit(private(ToyLearner(broken=frozenset({2}))))


def test_noise_is_that_of_the_spec(private):
    """Over many rounds the deviation on a number is z · C."""
    found = [fit(private(), task(number=number)).adapter.load().vector - 2.0 for number in range(60)]
    numbers = torch.stack(found)  # (60, 3)
    assert float((numbers - numbers.mean(0)).std()) == pytest.approx(SPEC.deviation, rel=4 / math.sqrt(2 * 180))


BY_EXAMPLE = SPEC.model_copy(update={"unit": "example", "noise": 2.0})


class Stepping(ToyLearner):
    """Trains by example: moves by a draw of its own, and by the number of its examples."""

    def fit_by_example(self, asked, shard, on_status, draws):
        update = self.fit(asked, shard, on_status)
        noise = torch.from_numpy(draws("noise").normals(3)).float()
        moved = asked.adapter.tensors["w"] + noise + len(shard.sft)
        return replace(update, adapter=adapter(*moved.tolist()))


def test_by_example_the_update_is_the_learners_with_draws_of_the_secret_and_one_line_in_the_ledger(private, tmp_path):
    update, again = fit(private(Stepping()), task(BY_EXAMPLE)), fit(private(Stepping()), task(BY_EXAMPLE))
    assert update.adapter.load().to_bytes() == again.adapter.load().to_bytes()
    assert (update.contribution, update.report.steps) == (WITHHELD, 0)
    (release,) = spent(tmp_path)
    assert (release.unit, release.noise, release.rate, release.steps) == ("example", 2.0, 1 / 3, 3)


def test_by_example_no_heartbeat_comes_between_the_steps(private):
    """The time of a step says how many examples it drew."""

    class Beating(Stepping):
        def fit_by_example(self, asked, shard, on_status, draws):
            for step in range(3):
                on_status(asked.status(shard.client_id, "training").model_copy(update={"step": step + 1, "steps": 3}))
            return super().fit_by_example(asked, shard, on_status, draws)

    heard = []
    private(Beating()).fit(task(BY_EXAMPLE), shard(2), heard.append)
    assert [(status.state, status.step) for status in heard] == [("training", 0), ("done", 0)]


def test_by_example_another_question_has_other_draws_and_a_lost_secret_counts_twice(private, tmp_path):
    one = fit(private(Stepping()), task(BY_EXAMPLE))
    other = fit(private(Stepping()), task(BY_EXAMPLE, adapter=adapter(1.0, 2.0, 3.0 + 1e-6)))
    assert one.adapter.load().distance(other.adapter.load()) > 0.1
    (tmp_path / "client_2" / "secret").unlink()
    assert fit(private(Stepping()), task(BY_EXAMPLE)).adapter.load().distance(one.adapter.load()) > 0.1
    assert [len({getattr(each, name) for each in spent(tmp_path)}) for name in ("tag", "secret")] == [3, 2]


def test_by_example_other_data_is_another_release_though_the_question_is_the_same(private, tmp_path):
    fit(private(Stepping()), task(BY_EXAMPLE))
    grown = shard(2)
    private(Stepping()).fit(task(BY_EXAMPLE), replace(grown, sft=(*grown.sft, grown.sft[0])), lambda status: None)
    assert [each.steps for each in spent(tmp_path)] == [3, 4]


def test_a_learner_that_does_not_train_by_example_is_refused_and_nothing_is_written(private, tmp_path):
    with pytest.raises(SettingsError, match="ToyLearner has no fit_by_example"):
        fit(private(), task(BY_EXAMPLE))
    assert list(tmp_path.iterdir()) == []


def test_by_example_a_client_declines_before_it_trains_where_its_own_budget_would_be_passed(private, tmp_path):
    budget = epsilon_of_steps([Steps(noise=2.0, rate=1 / 3, count=6)], 1e-5)
    own, learner = BY_EXAMPLE.model_copy(update={"epsilon": budget}), Stepping()
    for number in range(2):
        fit(private(learner, own=own), task(BY_EXAMPLE, number))
    with pytest.raises(PhaseDeclined, match="an update more would pass its budget"):
        fit(private(learner, own=own), task(BY_EXAMPLE, 2, run_id="another run"))
    assert learner.calls == [(0, 2), (1, 2)]
    fit(private(learner, own=own), task(BY_EXAMPLE, 1))  # again what has left already
    with pytest.raises(PhaseDeclined):
        fit(private(learner, own=own), task(BY_EXAMPLE, 1, adapter=adapter(1.0, 2.0, 4.0)))
    assert len(spent(tmp_path)) == 2


@pytest.mark.parametrize("asked", [None, SPEC, BY_EXAMPLE.model_copy(update={"clip": 1.0})])
def test_a_client_whose_unit_is_the_example_refuses_other_terms(private, asked):
    with pytest.raises(SettingsError, match=r"this client's DP_WHERE=client, DP_UNIT=example, DP_CLIP=0\.5"):
        fit(private(Stepping(), own=BY_EXAMPLE), task(asked))


def test_a_client_whose_examples_alone_were_protected_has_no_budget_left_as_a_whole(private):
    fit(private(Stepping()), task(BY_EXAMPLE))
    with pytest.raises(PhaseDeclined, match="would pass its budget"):
        fit(private(Stepping(), own=SPEC), task(SPEC, 1))


@dataclass
class SteppingTogether(Together, Stepping):
    """Takes several clients at once, and each alone by example."""


def test_by_example_clients_of_a_process_train_one_after_another(private, tmp_path):
    learner = SteppingTogether()
    found = private(learner, min_shard=3).fit_together(task(BY_EXAMPLE), [1, 2, 3], shard, lambda status: None)
    alone = [fit(private(Stepping()), task(BY_EXAMPLE), client) for client in (2, 3)]
    assert isinstance(found[0], ClientFailure)
    assert [each.adapter.load().sha256 for each in found[1:]] == [each.adapter.load().sha256 for each in alone]
    assert len(spent(tmp_path, 3)) == 1
