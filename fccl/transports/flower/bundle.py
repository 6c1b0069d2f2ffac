"""The Flower app of a federation: the files of the bundle that `fccl flower run` gives to the SuperLink.

They name the two apps and hold no code of their own: FCCL is installed where they run.
"""

from __future__ import annotations

import json
from pathlib import Path

from fccl import __version__
from fccl.storage.files import write_text

REQUEST = "request"  # in the run's configuration: the file that says what `fccl flower run` was asked for
_PACKAGE = "fccl_app"
_APP = """\
try:
    from {module} import app
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{{error}}: install FCCL in the Python that runs {command}, in a checkout with `pip install '.[flower]'`"
    ) from error

__all__ = ["app"]
"""
_CLIENT, _SERVER = "fccl.transports.flower.client_app", "fccl.apps.flower_server"
_RUNS_CLIENT, _RUNS_SERVER = "flower-supernode", "flower-superlink, or flower-superexec beside it"
_PROJECT = """\
[project]
name = "fccl"
version = "{version}"
description = "A federation of FCCL"
license = "MIT"
dependencies = []

[tool.flwr.app]
publisher = "fccl"

[tool.flwr.app.components]
serverapp = "{package}.server:app"
clientapp = "{package}.client:app"

[tool.flwr.app.config]
{key} = {request}
"""


def write_bundle(folder: Path, request: Path, server: str = _SERVER) -> None:
    """Write the app's folder. `request` is the file that the ServerApp reads, on the SuperLink's host; `server` the
    module that has it."""
    package = folder / _PACKAGE
    package.mkdir(parents=True)
    project = _PROJECT.format(version=__version__, package=_PACKAGE, key=REQUEST, request=json.dumps(str(request)))
    write_text(folder / "pyproject.toml", project)
    write_text(package / "__init__.py", "")
    write_text(package / "client.py", _APP.format(module=_CLIENT, command=_RUNS_CLIENT))
    write_text(package / "server.py", _APP.format(module=server, command=_RUNS_SERVER))
