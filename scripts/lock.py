"""Pin every version: `requirements.in` -> `requirements.txt`, `requirements-dev.in` -> `requirements-dev.txt`.

    python scripts/lock.py        (make lock)

Installs each into a fresh environment and writes down what came. Only names and versions: no index, no hash of one
platform's file.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOT_OURS = ("pip==", "setuptools==", "wheel==")


def frozen(requirements: str) -> list[str]:
    """What `pip freeze` says after installing one requirements file into a new environment."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = f"{folder}/bin/python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", str(ROOT / requirements)], check=True)
        listing = subprocess.run([python, "-m", "pip", "freeze"], check=True, capture_output=True, text=True).stdout
    return [line.split("+")[0] for line in listing.splitlines() if "==" in line and not line.startswith(NOT_OURS)]


def main() -> None:
    base = frozen("requirements.in")
    header = "# Made by `make lock` from {}; edit that file, not this one.\n"
    (ROOT / "requirements.txt").write_text(header.format("requirements.in") + "\n".join(base) + "\n")
    extra = [line for line in frozen("requirements-dev.in") if line not in base]
    (ROOT / "requirements-dev.txt").write_text(
        header.format("requirements-dev.in") + "-r requirements.txt\n" + "\n".join(extra) + "\n"
    )


if __name__ == "__main__":
    main()
