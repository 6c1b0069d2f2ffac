"""Free memory, as the files of a machine and of a container tell it."""

from pathlib import Path

import pytest

from fccl.processes.memory import free_bytes

NOWHERE = Path("/no such file")


@pytest.fixture
def machine(tmp_path):
    path = tmp_path / "meminfo"
    path.write_text("MemTotal:       8000000 kB\nMemAvailable:   3000 kB\nHugePages_Total:       0\n")
    return path


def container(folder, limit):
    folder.mkdir(exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text("1500000\n")
    (folder / "memory.stat").write_text("anon 900000\ninactive_file 500000\n")
    return folder


def test_without_a_container_it_is_what_the_machine_has(machine):
    assert free_bytes(machine, NOWHERE) == 3000 * 1024


def test_a_containers_limit_counts_without_copies_of_files(machine, tmp_path):
    assert free_bytes(machine, container(tmp_path / "cgroup", 2_000_000)) == 1_000_000
    assert free_bytes(machine, container(tmp_path / "cgroup", 900_000)) == 0


def test_a_container_without_a_limit_has_the_machines(machine, tmp_path):
    assert free_bytes(machine, container(tmp_path / "cgroup", "max")) == 3000 * 1024


def test_a_system_that_says_nothing_gives_no_number():
    assert free_bytes(NOWHERE, NOWHERE) is None


def test_this_machine_has_some_memory():
    assert (free_bytes() or 2**30) > 2**20
