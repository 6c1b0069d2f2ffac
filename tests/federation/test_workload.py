"""Work before a run is the work of the run: steps, tokens and files, from the draws with named seeds."""

from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.federation.workload import FileSizes, PlannedRound, Work, kept_space, planned_rounds, space
from fccl.specs import RoundPlan, TrainSpec
from fccl.training.batching import BUCKET
from tests.examples import few

TRAIN = TrainSpec(epochs=1, learning_rate=0.1, batch_size=4, warmup=0, max_grad_norm=1)
SIZES = FileSizes(adapter=100, update=60, client=100, peft=130, told=7, lines=5, once=11)


def plan(**changes):
    return RoundPlan(**{"fed_rounds": 3, "num_clients": 4, "clients_per_round": 4, "seed": 7} | changes)


def rounds_of(chosen, lengths, train=TRAIN):
    return tuple(planned_rounds(chosen, {"sft": train, "va": train}, {"sft": lengths, "va": lengths}))


@given(
    st.dictionaries(st.integers(0, 3), st.lists(st.integers(1, 90), min_size=1, max_size=150), min_size=1, max_size=4),
    st.integers(1, 3),
    st.integers(1, 9),
)
@settings(max_examples=few(60), deadline=None)
def test_a_client_takes_as_many_steps_as_its_buckets_have_batches_and_reads_each_example_once_an_epoch(
    lengths, epochs, batch
):
    train = TRAIN.model_copy(update={"epochs": epochs, "batch_size": batch})
    for each in rounds_of(plan(), lengths, train):
        assert set(each.work) == set(lengths)
        for client, work in each.work.items():
            whole, rest = divmod(len(lengths[client]), batch * BUCKET)
            assert work.steps == epochs * (whole * BUCKET + -(-rest // batch))
            assert work.tokens == epochs * sum(lengths[client])
            assert max(lengths[client]) <= work.longest <= sum(sorted(lengths[client])[-batch:])


def test_a_smaller_micro_batch_lets_fewer_tokens_through_the_model_together():
    lengths = {0: [10] * 8}
    small = TRAIN.model_copy(update={"micro_batch_size": 1})
    assert rounds_of(plan(num_clients=1, clients_per_round=1), lengths)[0].work[0].longest == 40
    assert rounds_of(plan(num_clients=1, clients_per_round=1), lengths, small)[0].work[0].longest == 10


def test_a_client_without_examples_of_a_kind_is_in_no_round_of_it():
    train = {"sft": TRAIN, "va": TRAIN}
    found = planned_rounds(plan(), train, {"sft": {0: [5], 1: [5]}, "va": {1: [5]}})
    assert [(each.phase, sorted(each.work)) for each in found] == [("sft", [0, 1])] * 3 + [("va", [1])] * 3


@given(st.integers(1, 9), st.integers(0, 5000))
@settings(max_examples=few(60), deadline=None)
def test_kept_updates_are_the_last_rounds_that_fit_and_never_take_more_than_they_may(count, most):
    rounds = [PlannedRound(number, "sft", {0: Work(1, 1, 1, 1)}) for number in range(count)]
    kept, each = kept_space(rounds, SIZES, most), 100 + 60 + 7
    assert kept.rounds == min(count, most // each)
    assert (kept.size, kept.whole) == (kept.rounds * each, count * each)


def test_the_files_of_a_run_are_two_rounds_the_end_of_sft_the_reference_and_the_result():
    lengths = {client: [5] for client in range(4)}
    chosen = plan()
    found = {each.name: each for each in space(chosen, rounds_of(chosen, lengths), SIZES, 10**9)}
    assert found["global adapters"].size == (3 + 2) * 100  # after rounds 3, 5 and 6; reference; result
    assert found["clients' last updates"].size == 2 * 4 * 100
    assert found["kept updates: 6 of 6 rounds"].size == 6 * (100 + 4 * 60)
    assert found["records"].size == 6 * 7 + 6 * 5 + 11
    assert [each.name for each in found.values() if not each.exact] == ["records"]


def test_under_the_best_round_the_number_of_adapters_is_not_known_before():
    chosen = plan(result_round="best")
    assert not any(each.exact for each in space(chosen, rounds_of(chosen, {0: [5]}), SIZES, 10**9))
