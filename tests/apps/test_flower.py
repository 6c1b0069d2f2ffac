"""`fccl flower run` on the side of whoever calls it: what it hands over, what it hears back, what it refuses."""

import os
import subprocess
import sys
import threading

import pytest

from fccl.apps.flower_request import (
    FlowerOutcome,
    FlowerRequest,
    awaited_outcome,
    outcome_file,
    read_request,
    write_value,
)
from fccl.apps.flower_server import serve
from fccl.apps.main import main
from fccl.errors import FcclError, FederationError
from fccl.testing.loopback import free_port
from fccl.transports.flower.bundle import REQUEST


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("address", ["superlink.example.org:8000", "10.0.0.7:8000", "[2001:db8::1]:8000", "8000"])
def test_a_superlink_elsewhere_is_not_called_without_tls(address, capsys):
    assert main(["flower", "run", "--superlink", address]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: the SuperLink at {address} is on another host, and nothing would be encrypted\n")


def test_a_certificate_that_is_not_there_is_one_line(capsys, tmp_path):
    assert main(["flower", "run", "--superlink", "far:1", "--root-certificates", "ca.pem"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'ca.pem'} is not there\n")


def test_peers_that_know_only_the_original_files_are_refused(capsys):
    assert main(["flower", "run", "--original-clients", "1"]) == 2
    assert "are not reached by Flower" in capsys.readouterr().err


def test_another_action_is_one_line(capsys):
    assert main(["flower", "walk"]) == 2
    assert "walk" in capsys.readouterr().err


def test_a_superlink_that_is_not_there_is_waited_for_and_then_one_line(capsys):
    address = f"127.0.0.1:{free_port()}"
    assert main(["flower", "run", "--superlink", address, "--wait", "0"]) == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"error: the SuperLink at {address} has not answered for 0 s: ")
    assert "Traceback" not in said.err


def test_a_request_carries_arguments_folder_and_the_environment_s_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("FED_ROUNDS", "7")
    monkeypatch.setenv("NOBODY_S", "x")
    path = tmp_path / "request.json"
    write_value(path, FlowerRequest.here({"num_clients": "2", "evaluate": False}, resume=True))
    found = read_request(path)
    assert (found.folder, found.environment) == (str(tmp_path), {"FED_ROUNDS": "7"})
    assert (found.given, found.resume, found.new) == ({"num_clients": "2", "evaluate": False}, True, False)


def test_the_serverapp_s_own_settings_do_not_count(tmp_path, monkeypatch):
    monkeypatch.setenv("FED_ROUNDS", "7")
    monkeypatch.setenv("NUM_CLIENTS", "9")
    FlowerRequest(folder=str(tmp_path), environment={"FED_ROUNDS": "2"}, given={}).enter()
    assert (os.environ["FED_ROUNDS"], os.environ.get("NUM_CLIENTS")) == ("2", None)


def test_an_error_of_the_run_is_raised_and_told(tmp_path):
    path = tmp_path / "request.json"
    write_value(path, FlowerRequest.here({"num_clients": "2", "log_dir": "same", "exchange_dir": "same"}))
    with pytest.raises(FcclError) as error:
        serve(None, {REQUEST: str(path)})
    told = awaited_outcome(path)
    assert (told.status, told.error, told.hint) == (1, str(error.value), error.value.hint)


def test_the_end_is_awaited_while_the_serverapp_lives(tmp_path):
    path = tmp_path / "request.json"
    write_value(outcome_file(path), FlowerOutcome(pid=os.getpid()))
    end = threading.Timer(0.2, write_value, (outcome_file(path), FlowerOutcome(status=0)))
    end.start()
    assert awaited_outcome(path) == FlowerOutcome(status=0)


def test_a_serverapp_that_was_killed_is_one_line_with_the_way_on(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    path = tmp_path / "request.json"
    write_value(outcome_file(path), FlowerOutcome(pid=process.pid))
    with pytest.raises(FederationError, match="the ServerApp has ended before the run was done"):
        awaited_outcome(path)


def test_a_serverapp_that_has_not_begun_is_one_line_with_where_to_call_from(tmp_path):
    """On another host, or as another user, it cannot read what this command has written."""
    with pytest.raises(FederationError, match="the ServerApp has not begun the run") as error:
        awaited_outcome(tmp_path / "request.json")
    assert "Call this on its host, as the user that runs it" in error.value.hint
