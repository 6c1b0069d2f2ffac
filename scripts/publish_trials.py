"""Packs the finished trials of a comparison into one file, so that anybody can make its tables again, or go on from it.

    python scripts/publish_trials.py logs/compare docs/evidence-trials.tar.xz

What is packed already and not in the folder stays. The same trials make the same bytes. `fccl compare` reads them from
the folder into which the file is unpacked.
"""

from __future__ import annotations

import io
import lzma
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fccl.compare.values import TrialResult  # noqa: E402
from fccl.errors import DataError, FcclError  # noqa: E402
from fccl.paths import ComparePaths  # noqa: E402
from fccl.storage.files import write_bytes  # noqa: E402
from fccl.storage.reading import read_value  # noqa: E402


def finished(paths: ComparePaths) -> dict[str, bytes]:
    """The whole results in a folder by their names in the archive. Others, half-written or of older specs, are left."""
    found = {}
    for path in sorted(paths.trials.glob("*.json")):
        result = read_value(path, TrialResult)
        if result is not None and paths.trial(result.spec.key) == path:
            found[f"{paths.trials.name}/{path.name}"] = path.read_bytes()
    return found


def packed(archive: Path) -> dict[str, bytes]:
    """The members of an archive; none where there is no such file. Raises `DataError` for one that cannot be read."""
    if not archive.exists():
        return {}
    try:
        with tarfile.open(archive, "r:xz") as tar:
            return {member.name: file.read() for member in tar if (file := tar.extractfile(member)) is not None}
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
        raise DataError(f"{archive} is no archive of trials: {error}", hint="name another file") from error


def archived(members: Mapping[str, bytes]) -> bytes:
    """A tar.xz of these files, the same bytes for the same files."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, content in sorted(members.items()):
            about = tarfile.TarInfo(name)
            about.size, about.mode = len(content), 0o644
            tar.addfile(about, io.BytesIO(content))
    return lzma.compress(made.getvalue(), preset=9)


def main(arguments: list[str]) -> int:
    """The command."""
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    folder, archive = map(Path, arguments)
    try:
        earlier, new = packed(archive), finished(ComparePaths(folder))
        if not new:
            raise DataError(f"{folder} has no finished trial", hint="name the folder of a `fccl compare` that has run")
        content = archived(earlier | new)
        write_bytes(archive, content)
    except FcclError as error:
        print(f"error: {error}\n  hint: {error.hint}", file=sys.stderr)
        return 1
    print(f"{archive}: {len(earlier | new)} trials, {len(set(new) - set(earlier))} of them new, {len(content):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
