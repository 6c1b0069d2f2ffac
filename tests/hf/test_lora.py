"""A trainer's LoRA beside the federation's: one line and the way out for each way in which it may be another."""

import pytest
import torch
from peft import get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

from fccl.adapters.adapter import Form
from fccl.errors import ModelError
from fccl.hf.lora import config_of, factors_of, form_of, require_same_lora
from fccl.hf.same_base import require_same_base
from tests.hf import made

pytestmark = pytest.mark.filterwarnings("ignore")
CONFIG = "LoraConfig(r=4, lora_alpha=8, target_modules=['c_attn', 'c_fc', 'c_proj'])"


@pytest.fixture
def task(tiny_model, tiny_model_path):
    return made.task(tiny_model_path, tiny_model.form)


def test_the_factors_have_the_names_and_shapes_of_the_federations(tiny_model, tiny_model_path, task):
    model = made.lora(tiny_model_path)
    assert form_of(factors_of(model)) == tiny_model.form
    require_same_lora(model, task)
    require_same_base(model, task)
    assert config_of(task) == CONFIG


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"r": 2, "lora_alpha": 4.0}, "the trainer's LoRA has rank 2, the federation's 4"),
        ({"lora_alpha": 16.0}, r"is scaled by 4, the federation's by 2 \(lora_alpha / r\)"),
        ({"use_rslora": True}, r"is scaled by 4, the federation's by 2"),
        ({"target_modules": ["c_attn"]}, r"is not on transformer\.h\.0\.attn\.c_proj and 5 more, the federation's is"),
        ({"layers_to_transform": [1]}, r"is not on transformer\.h\.0\.attn\.c_attn and 3 more"),
        ({"target_modules": [*made.TARGETS, "lm_head"]}, r"is also on lm_head, whose weights are tied"),
        ({"use_dora": True}, r"tensors|lora_magnitude_vector"),
        ({"modules_to_save": ["ln_f"]}, r"the trainer also trains .*ln_f.* which does not travel"),
        ({"bias": "lora_only"}, r"the trainer also trains .*bias"),
    ],
)
def test_another_lora_is_one_line_with_the_federations_config(tiny_model_path, task, change, said):
    with pytest.raises(ModelError, match=said) as error:
        require_same_lora(made.lora(tiny_model_path, **change), task)
    assert error.value.hint in (
        f"make it with {CONFIG}",
        "leave modules_to_save, bias and trainable tokens out of its LoraConfig",
    )


def test_a_model_without_lora_and_an_adapter_of_another_name_are_said(tiny_model_path, task):
    with pytest.raises(ModelError, match="has no LoRA"):
        require_same_lora(made.base(tiny_model_path), task)
    with pytest.raises(ModelError, match="trains the adapter mine, not default"):
        require_same_lora(get_peft_model(made.base(tiny_model_path), made.config(), adapter_name="mine"), task)


def test_a_wider_global_adapter_is_refused(tiny_model, tiny_model_path):
    wide = Form(
        {name: tuple(8 if size == 4 else size for size in shape) for name, shape in tiny_model.form.shapes.items()}
    )
    with pytest.raises(ModelError, match="the global adapter has rank 8, a trainer's LoRA no more than LORA_R=4"):
        require_same_lora(made.lora(tiny_model_path), made.task(tiny_model_path, wide))


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"n_layer": 1}, r"the trainer's base model is another: it has no transformer\.h\.1\.attn\.c_attn and 3 more"),
        ({"n_embd": 16}, r"its base model is another: .* has shape"),
    ],
)
def test_another_base_model_is_seen_by_its_layers_and_their_shapes(tiny_model_path, task, shape, said):
    usual = {"vocab_size": 300, "n_layer": 2, "n_embd": 32, "n_head": 2, "n_positions": 128}
    other = GPT2LMHeadModel(GPT2Config(**(usual | shape)))
    with pytest.raises(ModelError, match=said):
        require_same_lora(get_peft_model(other, made.config()), task)


def test_the_same_shapes_with_other_weights_are_seen_where_the_federations_model_lies_here(tiny_model_path, task):
    model = made.lora(tiny_model_path)
    with torch.no_grad():
        model.get_base_model().transformer.h[0].attn.c_attn.base_layer.weight.mul_(1.1)
    with pytest.raises(ModelError, match=r"the weights of transformer\.h\.0\.attn\.c_attn are not those of"):
        require_same_base(model, task)


def test_a_base_in_bfloat16_is_the_same_base(tiny_model_path, task):
    require_same_base(made.lora(tiny_model_path).to(torch.bfloat16), task)


def test_two_names_of_a_hub_are_compared(tiny_model, tiny_model_path):
    model = made.lora(tiny_model_path)
    model.get_base_model().config._name_or_path = "gpt2"
    with pytest.raises(ModelError, match="the trainer's base model is gpt2, the federation's some/other"):
        require_same_base(model, made.task(tiny_model_path, tiny_model.form, name="some/other"))
    require_same_base(model, made.task(tiny_model_path, tiny_model.form, name="gpt2"))
