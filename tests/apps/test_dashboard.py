"""`fccl dashboard`: the command, its port, its looks, its server."""

import filecmp
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from fccl.apps import dashboard
from fccl.apps.main import main
from fccl.errors import SettingsError

ROOT = Path(__file__).resolve().parent.parent.parent
CONFIG = Path(".streamlit") / "config.toml"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# --- wrong arguments, one line each


def test_a_taken_port_is_one_line(capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["dashboard", "--port", str(port)]) == 2
    assert (
        capsys.readouterr().err
        == f"error: port {port} of 127.0.0.1 is taken by another program\n  hint: name another with --port\n"
    )


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--port", "0"], "error: argument --port: '0' is not a port: 1 to 65535"),
        (["--port", "http"], "error: argument --port: 'http' is not a port: 1 to 65535"),
        (["--prot", "8502"], "error: unknown argument --prot"),
        (["--fed-rounds", "2"], "error: fccl dashboard does not read --fed-rounds"),
        (["--host", "no such name"], "error: --host no such name is not a name or address of this machine"),
        (["--host", "192.0.2.1", "--port", "8502"], "error: port 8502 of 192.0.2.1 is not this machine's"),
    ],
)
def test_wrong_arguments_are_one_line(capsys, arguments, error):
    assert main(["dashboard", *arguments]) == 2
    assert capsys.readouterr().err.startswith(error)


def test_without_the_libraries_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "streamlit", None)
    assert main(["dashboard"]) == 2
    assert capsys.readouterr().err == (
        'error: the dashboard needs streamlit, which is not installed\n  hint: pip install "fccl[dashboard]"\n'
    )


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8501"),
        ("0.0.0.0", "http://localhost:8501"),
        ("::", "http://localhost:8501"),
        ("::1", "http://[::1]:8501"),
    ],
)
def test_the_url_is_one_that_a_browser_here_can_open(host, url):
    assert dashboard.url(host, 8501) == url


def test_a_free_port_is_not_refused():
    dashboard.refuse_taken_port("127.0.0.1", free_port())
    with pytest.raises(SettingsError, match="not a name"):
        dashboard.refuse_taken_port("...", free_port())


# --- how it is served


def test_the_looks_are_the_same_from_a_checkout_and_from_a_wheel():
    assert filecmp.cmp(ROOT / CONFIG, dashboard.SCRIPT.parent / CONFIG, shallow=False)


def test_it_is_local_and_silent_unless_told_otherwise():
    config = tomllib.loads((ROOT / CONFIG).read_text())
    assert config["server"]["address"] == "127.0.0.1"
    assert config["browser"]["gatherUsageStats"] is False
    assert config["server"]["headless"] is True
    assert config["client"]["showErrorDetails"] == "none"


def luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_have_contrast_enough(theme):
    """WCAG 2.2, 1.4.3: at least 4.5 : 1 on both backgrounds."""
    colours = tomllib.loads((ROOT / CONFIG).read_text())["theme"][theme]
    for ground in ("backgroundColor", "secondaryBackgroundColor"):
        for name in ("textColor", "primaryColor", "redColor", "greenColor", "orangeColor", "grayColor"):
            lighter, darker = sorted((luminance(colours[name]), luminance(colours[ground])), reverse=True)
            assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (name, ground)


def test_streamlit_is_imported_by_the_page_alone():
    for path in (ROOT / "fccl").rglob("*.py"):
        if re.search(r"^\s*(import|from) streamlit", path.read_text(), re.MULTILINE):
            assert path.relative_to(ROOT / "fccl").as_posix().startswith(("pages/dashboard/", "apps/dashboard")), path


@pytest.mark.parametrize(("name", "kept"), [("WebSocketDisconnected", False), ("ValueError", True)])
def test_a_browser_that_is_closed_early_is_no_error(name, kept):
    kind = type(name, (Exception,), {})
    record = logging.LogRecord(
        "uvicorn.error", logging.ERROR, "", 0, "Exception in ASGI application", (), (kind, kind(), None)
    )
    assert dashboard._is_no_goodbye(record) is kept
    assert dashboard._is_no_goodbye(logging.LogRecord("uvicorn.error", logging.INFO, "", 0, "started", (), None))


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-m", "fccl", "dashboard", "--port"],
        pytest.param([sys.executable, str(ROOT / "dashboard.py"), "--port"], marks=pytest.mark.slow),
        pytest.param(
            [sys.executable, "-m", "streamlit", "run", str(ROOT / "dashboard.py"), "--server.port"],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["fccl", "door", "streamlit"],
)
def test_it_serves_on_localhost_alone_and_ends_when_it_is_told(tmp_path, command):
    """A real server, from a folder that is not the checkout."""
    port = free_port()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "LOG_DIR": "logs"}
    process = subprocess.Popen(
        [*command, str(port)],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert answer_of(f"http://127.0.0.1:{port}/_stcore/health", process) == "ok"
        assert listening_addresses(port) == {"0100007F"}
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    assert re.findall(r"http://\S+", output) == [f"http://127.0.0.1:{port}"]
    assert list(tmp_path.iterdir()) == [], "it reads and never writes"


def answer_of(url, process, seconds=120):
    """What the server says, as soon as there is one."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            with urlopen(url, timeout=5) as answer:
                return answer.read().decode()
        except (URLError, ConnectionError):
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.2)
    raise AssertionError(f"{url} has not answered")


def listening_addresses(port):
    """The local addresses, as the kernel writes them, on which somebody listens to this port."""
    lines = [
        line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    return {line[1].split(":")[0] for line in lines if line[3] == "0A" and int(line[1].split(":")[1], 16) == port}


def test_help_explains_the_arguments(capsys):
    with pytest.raises(SystemExit):
        main(["dashboard", "--help"])
    said = capsys.readouterr().out
    for part in ("--log-dir", "--exchange-dir", "--host", "--port", "127.0.0.1"):
        assert part in said
