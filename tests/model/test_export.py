"""A folder is written whole or not at all; what it holds is asked of PEFT and transformers in `test_model.py`."""

import dataclasses
import json
import os
import subprocess
import sys
import textwrap
from contextlib import contextmanager

import pytest

from fccl.errors import StorageError
from fccl.model.export import save_merged, save_peft


@contextmanager
def files_that_may_not_grow(most):
    """No file of this process gets longer, as on a disk that is full."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("save", [save_peft, save_merged])
def test_a_disk_that_refuses_safetensors_is_one_error_and_the_older_folder_stays(tiny_model, tmp_path, save):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "README.md").write_text("older")
    with pytest.raises(StorageError) as caught, files_that_may_not_grow(5_000):
        save(tiny_model, tiny_model.initial_adapter(1), folder, "card")
    assert str(caught.value) == f"cannot write {folder}: File too large"
    assert (folder / "README.md").read_text() == "older"
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


BOTH = """
    import sys
    from pathlib import Path

    from fccl.model.export import save_merged, save_peft
    from fccl.model.loading import load_model
    from fccl.specs import ModelSpec

    model = load_model(ModelSpec(name=sys.argv[1], lora_r=4, lora_alpha=8.0, lora_targets="all-linear", max_length=64))
    save_peft(model, model.initial_adapter(1), Path(sys.argv[2]) / "adapter", "card")
    save_merged(model, model.initial_adapter(1), Path(sys.argv[2]) / "merged", "card")
    """


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.mark.parametrize("seeds", [(), pytest.param(("1", "2", "3"), marks=pytest.mark.slow)], ids=len)
def test_two_exports_have_the_same_bytes_in_every_process_and_say_nothing_of_the_machine(
    tiny_model, tiny_model_path, tmp_path, seeds
):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(BOTH), str(tiny_model_path), str(tmp_path / seed)],
            env=os.environ | {"PYTHONHASHSEED": seed},
            stderr=subprocess.PIPE,
        )
        for seed in seeds
    ]
    for name in ("here", "again"):
        save_peft(tiny_model, tiny_model.initial_adapter(1), tmp_path / name / "adapter", "card")
        save_merged(tiny_model, tiny_model.initial_adapter(1), tmp_path / name / "merged", "card")
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    one, *others = (files_of(tmp_path / name) for name in ("here", "again", *seeds))
    assert {
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "merged/config.json",
        "merged/model.safetensors",
    } <= set(one)
    assert all(other == one for other in others)
    config = json.loads(one["adapter/adapter_config.json"])
    assert config["target_modules"] == ["c_attn", "c_fc", "c_proj"]
    assert config["base_model_name_or_path"] is None
    assert not [name for name, content in one.items() if str(tiny_model_path).encode() in content]


@pytest.mark.parametrize(
    ("made_of", "named"), [(("gpt2",), "gpt2"), (("builtin:micro",), "builtin:micro"), (("gpt2", "org/adapter"), None)]
)
def test_the_configuration_names_the_base_model_where_its_name_is_all_of_it(tiny_model, tmp_path, made_of, named):
    save_peft(
        dataclasses.replace(tiny_model, made_of=made_of), tiny_model.initial_adapter(1), tmp_path / "adapter", "card"
    )
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == named
