"""The length where nobody names one is the context of the model that will be loaded."""

import json

import pytest
from transformers import AutoModelForCausalLM

from fccl.errors import ModelError
from fccl.model.base_model import positions
from fccl.model.usual_length import usual_length
from fccl.presets import MOST_TOKENS


def folder_of(path, **files):
    path.mkdir()
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return str(path)


def test_it_is_the_context_that_the_loaded_model_has(tiny_model_path):
    assert usual_length(str(tiny_model_path)) == positions(AutoModelForCausalLM.from_pretrained(tiny_model_path).config)


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"model_type": "llama", "max_position_embeddings": 8192}, MOST_TOKENS),
        ({"model_type": "llama", "max_position_embeddings": 512}, 512),
        ({"model_type": "gpt2", "n_positions": 256}, 256),
        ({"model_type": "mamba"}, MOST_TOKENS),  # it has no positions
    ],
)
def test_it_is_read_without_the_weights_and_has_an_end(tmp_path, config, length):
    assert usual_length(folder_of(tmp_path / "model", config=config)) == length


def test_an_adapter_has_the_context_of_the_model_below_it(tmp_path, tiny_model_path):
    lower = folder_of(tmp_path / "lower", adapter_config={"base_model_name_or_path": str(tiny_model_path)})
    upper = folder_of(tmp_path / "upper", adapter_config={"base_model_name_or_path": lower})
    assert usual_length(upper) == usual_length(str(tiny_model_path)) == 128


def test_a_circle_of_adapters_ends(tmp_path):
    path = str(tmp_path / "self")
    assert usual_length(folder_of(tmp_path / "self", adapter_config={"base_model_name_or_path": path})) == MOST_TOKENS


@pytest.mark.parametrize("files", [{}, {"config": {}}])
def test_a_folder_that_tells_nothing_is_one_line(tmp_path, files):
    with pytest.raises(ModelError, match="holds no causal language model") as caught:
        usual_length(folder_of(tmp_path / "model", **files))
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(ModelError, match="there is no such folder"):
        usual_length(str(tmp_path / "nowhere"))
