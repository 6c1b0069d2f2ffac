"""`fccl dashboard`: the page that shows a run while it works and afterwards.

It reads the folders of a run and writes nothing.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import logging
import socket
import threading
from pathlib import Path

from fccl.apps.console import say
from fccl.config import Settings
from fccl.errors import SettingsError
from fccl.extras import require_extra

SCRIPT = Path(__file__).parent / "dashboard_script.py"  # its `.streamlit/config.toml` lies beside it
REFUSALS = {
    errno.EADDRINUSE: ("is taken by another program", "name another with --port"),
    errno.EACCES: ("is not allowed to this user", "name one above 1023 with --port"),
    errno.EADDRNOTAVAIL: (
        "is not this machine's: it has no such address",
        "--host 127.0.0.1 is this machine alone, 0.0.0.0 all of it",
    ),
}


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Serve the page until the process is stopped. Returns the exit status."""
    require_extra("dashboard", "the dashboard", ("altair", "streamlit"))
    refuse_taken_port(options.host, options.port)
    read_ahead(settings)
    say(f"Dashboard of {settings.log_dir}/: {url(options.host, options.port)}  (Ctrl-C ends it)")
    return serve(settings, options.host, options.port)


def read_ahead(settings: Settings) -> None:
    """Load the page's libraries now and begin to read the logs: both take seconds, and the first viewer should not wait
    for them.
    """
    importlib.import_module("fccl.pages.dashboard.page")
    from fccl.pages.dashboard.readers import hub_of

    threading.Thread(target=hub_of(settings.log_dir, settings.exchange_dir).run, daemon=True).start()


def serve(settings: Settings, host: str, port: int) -> int:
    """Streamlit's own command line, in this process."""
    from streamlit.web.cli import main as streamlit

    logging.getLogger("uvicorn.error").addFilter(_is_no_goodbye)
    own = [f"--log-dir={settings.log_dir}", f"--exchange-dir={settings.exchange_dir}"]
    flags = [f"--server.address={host}", f"--server.port={port}", "--logger.hideWelcomeMessage=true"]
    streamlit(["run", str(SCRIPT), *flags, "--", *own], prog_name="streamlit", standalone_mode=False)
    return 0


def _is_no_goodbye(record: logging.LogRecord) -> bool:
    """A browser that is closed while its connection is being made is an error to Starlette, with a traceback, and
    nothing to a person.
    """
    return (
        record.exc_info is None or record.exc_info[0] is None or record.exc_info[0].__name__ != "WebSocketDisconnected"
    )


def url(host: str, port: int) -> str:
    """The address for a browser on this machine."""
    shown = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


def refuse_taken_port(host: str, port: int) -> None:
    """Raises `SettingsError` when nobody could listen there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just left is free
            probe.bind(address)
    except (socket.gaierror, UnicodeError):
        raise SettingsError(
            f"--host {host} is not a name or address of this machine", hint="--host 127.0.0.1 is this machine alone"
        ) from None
    except OSError as error:
        what, way_out = REFUSALS.get(
            error.errno or 0, (f"cannot be listened on: {error.strerror}", "name another with --host and --port")
        )
        raise SettingsError(f"port {port} of {host} {what}", hint=way_out) from None
