import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from fccl.adapters.adapter import Adapter
from fccl.data.examples import PreferencePair, SftExample, prompt_of
from fccl.errors import AdapterError
from fccl.model.encoding import encode_pairs, encode_sft
from fccl.model.scoring import length_sorted_batches, score_pairs, score_sft

EXAMPLES = [SftExample("Name a bird. " * n, "It is a sparrow" + ", or so" * (7 * n % 5)) for n in (3, 1, 5, 2, 4, 1, 6)]
PAIRS = [
    PreferencePair(example.instruction, example.response, "Go away." * (1 + index % 3))
    for index, example in enumerate(EXAMPLES)
]


@pytest.fixture
def plain(tiny_model, tiny_model_path):
    """log p(response | prompt) and its tokens by the base model, one text at a time, from nothing but transformers."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model_path, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_path)

    @torch.no_grad()
    def log_prob(instruction, response):
        prompt = tokenizer(prompt_of(instruction))["input_ids"]
        answer = tokenizer(" " + response)["input_ids"] + [tokenizer.eos_token_id]
        logs = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        return sum(float(logs[len(prompt) + at - 1, token]) for at, token in enumerate(answer)), len(answer)

    tiny_model.load(tiny_model.initial_adapter(0))
    return log_prob


def test_sft_scores_are_those_of_a_plain_unbatched_forward(tiny_model, plain):
    scores = score_sft(tiny_model, encode_sft(tiny_model.tokenizer, EXAMPLES, 128), batch_size=3)
    expected = [plain(example.instruction, example.response) for example in EXAMPLES]
    assert scores.nll == pytest.approx([-log for log, _ in expected], rel=1e-5)
    assert scores.tokens.tolist() == [count for _, count in expected]


def test_pair_scores_are_those_of_a_plain_unbatched_forward(tiny_model, plain):
    scores = score_pairs(tiny_model, encode_pairs(tiny_model.tokenizer, PAIRS, 128), batch_size=4)
    chosen = [plain(pair.instruction, pair.preferred) for pair in PAIRS]
    rejected = [plain(pair.instruction, pair.dispreferred) for pair in PAIRS]
    assert scores.chosen == pytest.approx([log for log, _ in chosen], rel=1e-5)
    assert scores.rejected == pytest.approx([log for log, _ in rejected], rel=1e-5)
    assert scores.margins == pytest.approx(
        [mine[0] - other[0] for mine, other in zip(chosen, rejected, strict=True)], abs=1e-3
    )
    assert scores.margins_per_token == pytest.approx(
        [mine[0] / mine[1] - other[0] / other[1] for mine, other in zip(chosen, rejected, strict=True)], abs=1e-4
    )


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_batch_size_changes_nothing(tiny_model, batch_size):
    rows, pairs = encode_sft(tiny_model.tokenizer, EXAMPLES, 128), encode_pairs(tiny_model.tokenizer, PAIRS, 128)
    one, other = score_sft(tiny_model, rows, 3), score_sft(tiny_model, rows, batch_size)
    assert other.nll == pytest.approx(one.nll, rel=1e-6)
    assert score_pairs(tiny_model, pairs, batch_size).margins == pytest.approx(
        score_pairs(tiny_model, pairs, 3).margins, abs=1e-4
    )


def test_scores_keep_the_order_of_the_examples(tiny_model):
    rows = encode_sft(tiny_model.tokenizer, EXAMPLES, 128)
    forth, back = score_sft(tiny_model, rows, 2), score_sft(tiny_model, rows[::-1], 2)
    assert back.nll[::-1] == pytest.approx(forth.nll, rel=1e-6)
    assert (back.tokens[::-1] == forth.tokens).all()


def test_progress_counts_examples_up_to_all(tiny_model):
    seen = []
    score_sft(
        tiny_model, encode_sft(tiny_model.tokenizer, EXAMPLES, 128), 2, lambda done, total: seen.append((done, total))
    )
    assert seen == [(2, 7), (4, 7), (6, 7), (7, 7)]


def test_no_examples_no_scores(tiny_model):
    assert score_sft(tiny_model, [], 2).nll.shape == (0,)
    assert score_pairs(tiny_model, [], 2).margins.shape == (0,)


def test_an_adapter_that_overflows_is_refused(tiny_model):
    tiny_model.load(
        Adapter({name: torch.full(tuple(parameter.shape), 3e38) for name, parameter in tiny_model.factors.items()})
    )
    with pytest.raises(AdapterError, match="not finite"):
        score_sft(tiny_model, encode_sft(tiny_model.tokenizer, EXAMPLES, 128), 2)
    tiny_model.load(tiny_model.initial_adapter(0))


def test_no_gradients_are_kept(tiny_model):
    pairs = encode_pairs(tiny_model.tokenizer, PAIRS, 128)
    with torch.enable_grad():
        assert not tiny_model.response_log_probs(pairs).requires_grad


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(1, 9), st.integers(1, 900))
def test_batches_hold_every_index_once_within_both_limits(lengths, batch_size, tokens):
    batches = length_sorted_batches(lengths, batch_size, tokens)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    flat = [lengths[index] for batch in batches for index in batch]
    assert flat == sorted(flat)
    for batch in batches:
        assert 1 <= len(batch) <= batch_size
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= tokens
