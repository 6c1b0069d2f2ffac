"""Pin every version: `requirements.in` -> `requirements.txt`, `requirements-dev.in` -> `requirements-dev.txt`.

    python scripts/lock.py        (make lock)

The ranges stand in pyproject.toml alone. pip resolves them into an empty environment, together with the libraries that
people use beside FCCL, so that one environment can hold all of them. Nothing is installed. Written down are only names
and versions: no index, no hash of one platform's file.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Flower allows no uvicorn that websockets 17 works with behind a proxy; Streamlit warns at every start
NEIGHBOURS = ("flwr==1.41.*", "dp-accounting", "websockets<17")
NOT_OURS = ("fccl", "pip", "setuptools", "wheel")
HEADER = "# Made by `make lock` from {}; edit that file, not this one.\n"

Pins = dict[str, str]


def resolved(python: str, *arguments: str) -> Pins:
    """Every package that `pip install` with these arguments would bring into an empty environment, and its version."""
    pip = [python, "-m", "pip", "install", "--dry-run", "--quiet", "--report", "-"]
    report = subprocess.run([*pip, *arguments], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    packages = [item["metadata"] for item in json.loads(report)["install"]]
    return {
        package["name"]: package["version"].split("+")[0] for package in packages if package["name"] not in NOT_OURS
    }


def written(pins: Pins) -> str:
    """Pins as lines of a requirements file, in the order of the alphabet."""
    return "".join(f"{name}=={pins[name]}\n" for name in sorted(pins, key=str.lower))


def locked(python: str, limits: Path) -> tuple[Pins, Pins]:
    """The pins of `requirements.in`, and what `requirements-dev.in` adds; `limits` is a file to work with."""
    limits.write_text(written(resolved(python, "-r", "requirements-dev.in", "-r", "requirements.in", *NEIGHBOURS)))
    base = resolved(python, "-r", "requirements.in", "-c", str(limits))
    dev = resolved(python, "-r", "requirements-dev.in", "-c", str(limits))
    return base, {name: version for name, version in dev.items() if name not in base}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        base, dev = locked(f"{folder}/bin/python", Path(folder) / "limits.txt")
    (ROOT / "requirements.txt").write_text(HEADER.format("requirements.in") + written(base))
    pins = "-r requirements.txt\n" + written(dev)
    (ROOT / "requirements-dev.txt").write_text(HEADER.format("requirements-dev.in") + pins)


if __name__ == "__main__":
    main()
