import math
from collections import Counter

import pytest
import torch

from fccl.data.examples import prompt_of
from fccl.model.generate import Sampling, generate

INSTRUCTIONS = [
    "Name a fruit.",
    "What is the opposite of hot, and what is the opposite of cold?",
    "Add",
    "Copy these words: the small bird sings in the old tree.",
]


@pytest.fixture(autouse=True)
def _loaded(tiny_model, an_adapter):
    tiny_model.load(an_adapter(1))


def alone(model, instruction, new_tokens):
    """Greedy decoding written out: the whole text through the model again for every token."""
    ids = model.tokenizer(prompt_of(instruction))["input_ids"][-(model.spec.max_length - new_tokens) :]
    answer = []
    with torch.no_grad():
        for _ in range(new_tokens):
            token = int(model.base(torch.tensor([ids + answer])).logits[0, -1].argmax())
            if token == model.tokenizer.eos_token_id:
                break
            answer.append(token)
    return model.tokenizer.decode(answer, skip_special_tokens=True).strip()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_greedy_text_is_that_of_the_plain_loop_whatever_the_batch(tiny_model, an_adapter, seed):
    tiny_model.load(an_adapter(seed))
    expected = [alone(tiny_model, instruction, 12) for instruction in INSTRUCTIONS]
    assert generate(tiny_model, INSTRUCTIONS, 12, batch_size=8) == expected
    assert generate(tiny_model, INSTRUCTIONS, 12, batch_size=1) == expected


def test_it_stops_at_end_of_text(tiny_model):
    """A final layer norm that points at the end-of-text token alone makes it the likeliest everywhere."""
    norm, end = tiny_model.base.transformer.ln_f, int(tiny_model.tokenizer.eos_token_id)
    weight, bias = norm.weight.detach().clone(), norm.bias.detach().clone()
    with torch.no_grad():
        norm.weight.zero_()
        norm.bias.copy_(100 * tiny_model.base.transformer.wte.weight[end])
        texts = generate(tiny_model, INSTRUCTIONS, 12, batch_size=8)
        norm.weight.copy_(weight)
        norm.bias.copy_(bias)
    assert texts == [""] * 4


def test_the_models_own_generation_settings_do_not_interfere(tiny_model):
    own = tiny_model.base.generation_config
    before = generate(tiny_model, INSTRUCTIONS, 12, batch_size=8)
    own.repetition_penalty = 50.0
    try:
        assert generate(tiny_model, INSTRUCTIONS, 12, batch_size=8) == before
        assert tiny_model.base.generation_config is own
    finally:
        own.repetition_penalty = None


def test_sampling_follows_its_seed_and_neither_the_batch_nor_the_other_instructions(tiny_model):
    texts = generate(tiny_model, INSTRUCTIONS, 12, 8, Sampling(1.0, seed=3))
    assert texts == generate(tiny_model, INSTRUCTIONS, 12, 1, Sampling(1.0, seed=3))
    assert texts[:2] == generate(tiny_model, INSTRUCTIONS[:2], 12, 8, Sampling(1.0, seed=3))
    assert texts != generate(tiny_model, INSTRUCTIONS, 12, 8, Sampling(1.0, seed=4))


def test_torchs_random_state_is_neither_used_nor_changed(tiny_model):
    torch.manual_seed(0)
    first, state = generate(tiny_model, INSTRUCTIONS, 5, 8, Sampling(1.0, seed=3)), torch.get_rng_state()
    torch.manual_seed(0)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(1)
    assert generate(tiny_model, INSTRUCTIONS, 5, 8, Sampling(1.0, seed=3)) == first


def test_a_low_temperature_is_greedy(tiny_model):
    assert generate(tiny_model, INSTRUCTIONS, 12, 8, Sampling(1e-6, seed=3)) == generate(
        tiny_model, INSTRUCTIONS, 12, 8
    )


def test_samples_have_the_distribution_of_the_softmax(tiny_model):
    """Pearson's chi-square over the first token of 2,000 samples, the rarer tokens pooled; the seed is fixed, so it
    cannot flicker.
    """
    count, temperature = 2000, 1.5
    texts = Counter(generate(tiny_model, ["Add"] * count, 1, 256, Sampling(temperature, seed=9)))
    ids = torch.tensor([tiny_model.tokenizer(prompt_of("Add"))["input_ids"]])
    with torch.no_grad():
        probabilities = (tiny_model.base(ids).logits[0, -1] / temperature).softmax(-1).tolist()
    expected = Counter()
    for token, probability in enumerate(probabilities):
        expected[tiny_model.tokenizer.decode([token], skip_special_tokens=True).strip()] += probability * count
    common = [text for text, number in expected.items() if number >= 10]
    assert len(common) > 10
    cells = [(texts[text], expected[text]) for text in common]
    cells.append((count - sum(seen for seen, _ in cells), count - sum(wanted for _, wanted in cells)))
    statistic = sum((seen - wanted) ** 2 / wanted for seen, wanted in cells)
    degrees = len(cells) - 1
    assert statistic < degrees + 4 * math.sqrt(2 * degrees)


def test_a_prompt_that_is_too_long_loses_its_beginning(tiny_model):
    long = "the small bird sings in the old tree. " * 40 + "Name a fruit."
    assert len(tiny_model.tokenizer(prompt_of(long))["input_ids"]) > tiny_model.spec.max_length
    assert generate(tiny_model, [long], 12, 4) == [alone(tiny_model, long, 12)]


def test_more_new_tokens_than_the_context_leave_a_quarter_to_the_prompt(tiny_model):
    (text,) = generate(tiny_model, [INSTRUCTIONS[3]], 10_000, 4)
    assert text == alone(tiny_model, INSTRUCTIONS[3], 96)


def test_progress_ends_with_all(tiny_model):
    seen = []
    generate(tiny_model, INSTRUCTIONS, 2, 1, on_batch=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (4, 4)
    assert generate(tiny_model, [], 2, 1) == []
