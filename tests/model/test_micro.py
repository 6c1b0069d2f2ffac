"""The built-in model: small, real, and acquainted with the small world but not with instructions."""

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel

from fccl.data.builtin.dataset import builtin_sft
from fccl.data.builtin.sayings import sayings
from fccl.data.builtin.world import load_world
from fccl.data.examples import prompt_of
from fccl.model.base_model import base_path

FOLDER = base_path("builtin:micro")


@pytest.fixture(scope="module")
def micro():
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(
        FOLDER
    )


def test_is_a_gpt2_of_at_most_six_megabytes(micro):
    from pathlib import Path

    assert isinstance(micro[0], GPT2LMHeadModel)
    assert sum(path.stat().st_size for path in Path(FOLDER).iterdir()) <= 6_000_000
    assert (Path(FOLDER) / "model.safetensors").is_file()
    assert "**What it is not.**" in (Path(FOLDER) / "README.md").read_text()


def test_the_tokenizer_loses_no_byte(micro):
    for text in ("A fox is orange.", "Zoë — 東京 \u2028 \x00 🦊", "  two  spaces\n\n"):
        assert micro[1].decode(micro[1](text)["input_ids"]) == text


def share_of_right_choices(micro, statements):
    """How often the true end of a statement is likelier than every other value of its relation."""
    model, tokenizer = micro
    right = 0
    for start, true, values in statements:
        end = tokenizer.eos_token_id
        options = [torch.tensor([end, *tokenizer(f"{start} {value}")["input_ids"]]) for value in values]
        rows = pad_sequence(
            options, batch_first=True, padding_value=end
        )  # (values, tokens); no token sees what follows
        with torch.no_grad():
            log_probs = model(rows).logits[:, :-1].log_softmax(-1)  # (values, tokens - 1, vocabulary)
        told = log_probs.gather(2, rows[:, 1:, None])[:, :, 0]  # (values, tokens - 1)
        scores = [float(mine[: len(ids) - 1].mean()) for mine, ids in zip(told, options, strict=True)]
        right += values[scores.index(max(scores))] == true
    return right / len(statements)


def test_knows_plain_facts(micro):
    world = load_world()
    people = [(f"{person.name} works as a", person.job, world.values("job")) for person in world.people[::5]]
    colours = [
        (f"The colour of the {thing} is", colour, world.values("colour"))
        for thing, colour in list(world.relations["colour"].items())[::4]
    ]
    assert share_of_right_choices(micro, people) > 0.8
    assert share_of_right_choices(micro, colours) > 0.8


def test_knows_nothing_of_instructions(micro):
    model, tokenizer = micro
    exact = 0
    for example in builtin_sft()[::90]:
        prompt = tokenizer(prompt_of(example.instruction), return_tensors="pt")
        output = model.generate(**prompt, max_new_tokens=12, do_sample=False, pad_token_id=tokenizer.eos_token_id)
        exact += (
            tokenizer.decode(output[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True).strip()
            == example.answer
        )
    assert exact <= 1


@pytest.mark.slow
def test_the_script_that_trained_it_is_deterministic(tmp_path):
    import subprocess
    import sys
    from pathlib import Path

    root = Path(__file__).resolve().parents[2]
    small = ("--steps", "3", "--documents", "400", "--width", "32", "--heads", "2", "--vocabulary", "600")
    for name in ("one", "two"):
        command = [sys.executable, str(root / "scripts" / "train_micro.py"), "--out", str(tmp_path / name), *small]
        subprocess.run(command, check=True, capture_output=True, env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"})
    for file in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_has_a_token_for_every_word_of_a_sayings_end_and_knows_none(micro):
    """A choice at random is right once in eleven."""
    world = load_world()
    words = sorted({word for saying in sayings(world) for word in saying.end})
    assert [word for word in words if len(micro[1](f" {word}")["input_ids"]) > 1] == []
    asked = [(f"In {one.land} they say: {one.start}", one.end[0], world.words["colours"]) for one in sayings(world)]
    assert share_of_right_choices(micro, asked[::2]) < 0.35
