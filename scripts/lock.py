"""Pin every version again: `requirements.in` -> `requirements.txt`, `requirements-dev.in` -> `requirements-dev.txt`.

    python scripts/lock.py              (make lock: what is pinned stays, where it still fits)
    python scripts/lock.py --upgrade    (make lock UPGRADE=1: the newest versions that go together)

The ranges stand in pyproject.toml alone. All that a checkout needs is resolved at once, so that one environment holds
it; the resolver is uv's, which needs seconds where pip tries versions for minutes. Nothing of it is installed. Written
down are only names and versions: no index, no hash of one platform's file.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES, PINNED = ("requirements.in", "requirements-dev.in"), ("requirements.txt", "requirements-dev.txt")
# Flower allows no uvicorn that websockets 17 works with behind a proxy; Streamlit warns at every start
NEIGHBOURS = ("websockets<17",)
NOT_OURS = ("fccl", "pip", "setuptools", "wheel")
# What torch brings for one kind of GPU, where the index has no build for the CPU alone
OF_ONE_GPU = re.compile(r"nvidia-|cuda-|triton$")
# uv does not read pip's settings
FROM_PIP = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
    "PIP_CERT": "SSL_CERT_FILE",
}
HEADER = "# Made by `make lock` from {}; edit that file, not this one.\n"

Pins = dict[str, str]


def pins_in(text: str) -> Pins:
    """The pins of a requirements file: each package and its version, without the build of one machine."""
    rows = [line.split("==") for line in text.splitlines() if "==" in line and line[0] != "#"]
    return {name: version.split("+")[0] for name, version in rows}


def ours(pins: Pins) -> Pins:
    """The pins without this project, the installers, and what one kind of GPU needs."""
    return {name: version for name, version in pins.items() if name not in NOT_OURS and not OF_ONE_GPU.match(name)}


def written(pins: Pins) -> str:
    """Pins as lines of a requirements file, in the order of the alphabet."""
    return "".join(f"{name}=={pins[name]}\n" for name in sorted(pins))


def resolved(uv: str, inputs: Sequence[str], limits: Path, prefer: Pins) -> Pins:
    """Every package that these requirements would bring into an empty environment, and its version.

    `limits` is a file of constraints; a version of `prefer` is taken where it fits.
    """
    found = limits.with_name("found.txt")
    found.write_text(written(prefer))  # uv keeps what its output says already
    command = [uv, "pip", "compile", *inputs, "--constraints", str(limits), "--output-file", str(found)]
    command += ["--python-version", "3.11", "--no-header", "--no-annotate", "--quiet"]
    known = {name: os.environ[pip] for pip, name in FROM_PIP.items() if pip in os.environ}
    subprocess.run(command, check=True, cwd=ROOT, env=known | os.environ)
    return pins_in(found.read_text())


def locked(uv: str, limits: Path, prefer: Pins) -> tuple[Pins, Pins]:
    """The pins of `requirements.in`, and what `requirements-dev.in` adds; `limits` is a file to work with."""
    limits.write_text("\n".join(NEIGHBOURS))
    together = resolved(uv, FILES, limits, prefer)
    limits.write_text(written(together))
    base, dev = (ours(resolved(uv, [name], limits, together)) for name in FILES)
    return base, {name: version for name, version in dev.items() if name not in base}


def main() -> None:
    prefer = {} if "--upgrade" in sys.argv else pins_in("".join((ROOT / name).read_text() for name in PINNED))
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([f"{folder}/bin/python", "-m", "pip", "install", "--quiet", "uv"], check=True)
        base, dev = locked(f"{folder}/bin/uv", Path(folder) / "limits.txt", prefer)
    for asked, pinned, text in zip(FILES, PINNED, (written(base), f"-r {PINNED[0]}\n{written(dev)}"), strict=True):
        (ROOT / pinned).write_text(HEADER.format(asked) + text)


if __name__ == "__main__":
    main()
