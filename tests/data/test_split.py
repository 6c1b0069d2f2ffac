"""The split: nothing of the server is ever trained on, in either kind; sizes; nothing lost."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.data.examples import PreferencePair, SftExample
from fccl.data.split import SPLITS, group_key, split_by_instruction
from fccl.errors import DataError
from fccl.specs import DataSpec, PartitionSpec, named_seed
from tests.examples import few


def spec_of(test=300, learn=48, validation=48, seed=0):
    return DataSpec(
        sft_data="a",
        va_data="b",
        test_examples=test,
        learn_examples=learn,
        validation_examples=validation,
        partition=PartitionSpec(num_clients=2, alpha=1, seed=seed),
    )


def sft_of(instructions):
    return [SftExample(instruction, f"response {index}") for index, instruction in enumerate(instructions)]


def va_of(instructions):
    return [
        PreferencePair(instruction, f"good {index}", f"bad {index}") for index, instruction in enumerate(instructions)
    ]


def keys(examples):
    return {group_key(example.instruction) for example in examples}


# Few names in several spellings, so that instructions come twice within a kind and across the two.
INSTRUCTIONS = st.lists(
    st.builds("{}{}".format, st.sampled_from(["q", "Q", " q ", "q  "]), st.integers(0, 25)), min_size=4, max_size=60
).filter(lambda names: len(set(map(group_key, names))) >= 4)


@given(INSTRUCTIONS, INSTRUCTIONS, *[st.integers(1, 40)] * 3, st.integers(0, 2**32))
@settings(deadline=None, max_examples=few(40))
def test_an_instruction_of_a_server_split_is_in_the_same_split_of_the_other_kind(
    sft, va, test, learn, validation, seed
):
    both = split_by_instruction(sft_of(sft), va_of(va), spec_of(test, learn, validation, seed))
    for name in SPLITS:
        for other in SPLITS:
            if name != other:
                here = set().union(*(keys(split.parts()[name]) for split in both))
                there = set().union(*(keys(split.parts()[other]) for split in both))
                assert not here & there
    for split, examples in zip(both, (sft_of(sft), va_of(va)), strict=True):
        assert Counter(example for part in split.parts().values() for example in part) == Counter(examples)
        assert all(split.parts().values())


@given(st.data(), *[st.integers(4, 400)] * 2, *[st.integers(1, 100)] * 3)
@settings(deadline=None, max_examples=few(40))
def test_sizes_are_exact_to_one_when_no_instruction_comes_twice_within_a_kind(
    data, n_sft, n_va, test, learn, validation
):
    shared = data.draw(st.integers(0, min(n_sft, n_va)))
    sft, va = [f"q{index}" for index in range(n_sft)], [f"q{index + n_sft - shared}" for index in range(n_va)]
    for split, count in zip(
        split_by_instruction(sft_of(sft), va_of(va), spec_of(test, learn, validation)), (n_sft, n_va), strict=True
    ):
        quotas = (test, count // 5), (learn, count // 20), (validation, count // 20)
        wanted = [max(1, min(most, share)) for most, share in quotas]
        found = len(split.test), len(split.learn), len(split.validation)
        assert all(size <= most for size, most in zip(found, wanted, strict=True))
        assert sum(found) >= sum(wanted) - 1


def test_the_split_depends_on_the_seed_and_not_on_the_order_of_the_rows():
    examples = sft_of([f"q{index}" for index in range(200)])
    one, _ = split_by_instruction(examples, [], spec_of(seed=1))
    turned, _ = split_by_instruction(examples[::-1], [], spec_of(seed=1))
    other, _ = split_by_instruction(examples, [], spec_of(seed=2))
    assert set(one.test) == set(turned.test) != set(other.test)
    assert one.train == turned.train[::-1]


@given(st.integers(20, 300), st.integers(1, 100), st.integers(0, 2**32))
@settings(deadline=None, max_examples=few(20))
def test_the_test_split_is_that_of_version_0_1_so_that_its_results_can_be_compared(count, test, seed):
    """Which had a test and a validation split, and gave the first of the ranking to one each, the next to training."""
    names = [f"q{index}" for index in range(count)]
    ranked = sorted(names, key=lambda name: (named_seed(seed, "split", name), name))
    size = max(1, min(test, count // 5))
    split, _ = split_by_instruction(sft_of(names), [], spec_of(test, seed=seed))
    assert keys(split.test) == {ranked[0], *ranked[3 : size + 2]}


def test_pairs_may_be_made_later():
    sft, va = split_by_instruction(sft_of("abcdef"), [], spec_of())
    assert [len(part) for part in sft.parts().values()] == [3, 1, 1, 1]
    assert not any(va.parts().values())


def test_a_large_group_goes_to_training():
    split, _ = split_by_instruction(sft_of(["same"] * 50 + [f"q{index}" for index in range(50)]), [], spec_of())
    assert keys(split.train) >= {"same"}
    assert (len(split.test), len(split.learn), len(split.validation)) == (20, 5, 5)


def test_when_every_group_is_too_large_a_smallest_one_goes_to_the_server():
    split, _ = split_by_instruction(sft_of(["a"] * 2 + ["b"] * 3 + ["c"] * 2 + ["d"] * 2), [], spec_of())
    assert keys(split.train) == {"b"}


@pytest.mark.parametrize("instructions", [["a"], ["a", "b", "c"], ["a", "A", " a", "a "]])
def test_too_few_instructions(instructions):
    with pytest.raises(DataError, match="too few for a training, a learn, a validation and a test split"):
        split_by_instruction(sft_of(instructions), [], spec_of())
