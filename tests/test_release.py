"""The wheel and the source distribution: complete, without tests, at work where no extra is installed."""

import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest

from fccl import __version__
from fccl.extras import EXTRAS

ROOT = Path(__file__).resolve().parent.parent
BUILD = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
SMALL = ("--max-sft-examples", "60", "--max-va-examples", "30", "--fed-rounds", "1", "--no-evaluate")


def tracked(folder=""):
    listed = subprocess.check_output(["git", "ls-files", folder or "."], cwd=ROOT, text=True).splitlines()
    return [name for name in listed if (ROOT / name).is_file()]


def is_data(name, globs):
    """Whether the project file says that a file goes into the wheel."""
    packages = ((package.replace(".", "/") + "/", patterns) for package, patterns in globs.items())
    return any(
        name.startswith(folder) and any(fnmatch(name.removeprefix(folder), pattern) for pattern in patterns)
        for folder, patterns in packages
    )


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="only a checkout knows its files")
def test_every_file_of_the_package_goes_into_the_wheel():
    globs = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert [name for name in tracked("fccl") if not name.endswith(".py") and not is_data(name, globs)] == []


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The source distribution, and the wheel that is made of it alone."""
    folder = tmp_path_factory.mktemp("release")
    for name in tracked():
        (folder / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / "checkout" / name)
    tools, pip = folder / "tools", [sys.executable, "-m", "pip", "--quiet"]
    subprocess.run([*pip, "install", "--target", str(tools), "setuptools>=77"], check=True)
    build = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tools)!r}); {BUILD}", str(folder)]
    subprocess.run(build, cwd=folder / "checkout", check=True, capture_output=True)
    source = folder / f"fccl-{__version__}.tar.gz"
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(source)], check=True)
    return source, next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_source_distribution_and_the_wheel_hold_the_whole_package_and_no_tests(built):
    source, wheel = built
    package = set(tracked("fccl"))
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert package | {"pyproject.toml", "README.md", "LICENSE"} <= names
    kept = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert kept == package
    assert "fccl/testing/toy.py" in kept


@pytest.mark.slow
def test_the_wheel_works_where_no_extra_is_installed(built, tmp_path):
    """In an environment of its own that sees the libraries of this one, but for those of the extras."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    site = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    pip = [sys.executable, "-m", "pip", "--quiet", "install", "--no-deps", "--target", str(site)]
    subprocess.run([*pip, str(built[1])], check=True)
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (site / "libraries.pth").write_text("\n".join(libraries) + "\n")
    hidden = sorted(module for modules in EXTRAS.values() for module in modules)
    (site / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({hidden!r}))\n")

    def fccl(*arguments):
        command = [str(python), "-m", "fccl", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    where = subprocess.check_output([str(python), "-c", "import fccl; print(fccl.__file__)"], cwd=tmp_path, text=True)
    assert Path(where.strip()).is_relative_to(site)
    assert fccl("--version").stdout == f"fccl {__version__}\n"
    assert "usage: fccl" in fccl("--help").stdout
    for command in (("prepare", *SMALL[:4]), ("run", *SMALL)):
        done = fccl(*command)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "logs" / "global_final.safetensors").is_file()
    assert 'pip install "fccl[dashboard]"' in fccl("dashboard").stderr
