"""A folder is written whole or not at all; what it holds is asked of PEFT and transformers in `test_model.py`."""

import subprocess
import sys
import textwrap

import pytest

SCRIPT = """
    import resource
    import sys
    from pathlib import Path

    from fccl.errors import StorageError
    from fccl.export import save_merged, save_peft
    from fccl.model import load_model
    from fccl.specs import ModelSpec

    model = load_model(ModelSpec(name=sys.argv[1], lora_r=4, lora_alpha=8.0, lora_targets="all-linear", max_length=64))
    folder = Path(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))
    for save in (save_peft, save_merged):
        try:
            save(model, model.initial_adapter(1), folder, "card")
        except StorageError as error:
            print(error)
    """


def test_a_disk_that_refuses_safetensors_is_one_error_and_the_older_folder_stays(tiny_model_path, tmp_path):
    """In a process of its own, whose files may not grow."""
    pytest.importorskip("resource")
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "README.md").write_text("older")
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tiny_model_path), str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [f"cannot write {folder}: File too large"] * 2
    assert (folder / "README.md").read_text() == "older"
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
