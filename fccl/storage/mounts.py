"""The file system that a folder is on: whether other machines may write there too."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

# Here a file that another machine writes is not notified, though one's own would be.
_REMOTE = (
    "nfs",
    "cifs",
    "smb",
    "fuse",
    "9p",
    "virtiofs",
    "ceph",
    "gluster",
    "lustre",
    "afs",
    "vboxsf",
    "prl_fs",
    "grpcfuse",
)


def is_remote(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Whether the folder is on a file system of which another machine may be a part.

    False where the mounts are not told.
    """
    best, kind = -1, ""
    real = folder.resolve()
    with suppress(OSError, ValueError, IndexError):
        for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
            left, right = line.split(" - ", 1)
            point = Path(left.split()[4].replace("\\040", " "))
            if len(point.parts) > best and real.is_relative_to(point):
                best, kind = len(point.parts), right.split()[0]
    return kind.startswith(_REMOTE)
