"""Memory, as the files of a machine and of a container tell it."""

from pathlib import Path

import pytest

from fccl.processes.memory import free_bytes, peak_bytes, peaks_below

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


def table_of(folder, processes):
    """A table of processes as the system has it, of (number, parent, peak in kilobytes or None)."""
    for number, parent, peak in processes:
        (folder / str(number)).mkdir()
        lines = [f"Name:\tpython {number}", f"PPid:\t{parent}"] + ([] if peak is None else [f"VmHWM:\t  {peak} kB"])
        (folder / str(number) / "status").write_text("\n".join(lines))
    return folder


def test_the_peaks_below_a_process_are_those_of_its_children_and_of_theirs(tmp_path):
    table = table_of(tmp_path, [(1, 0, 9), (5, 1, 100), (6, 5, 200), (7, 6, 300), (8, 1, 400), (9, 5, None)])
    assert peaks_below(5, table) == (200 * 1024, 300 * 1024)
    assert peaks_below(7, table) == ()
    assert peak_bytes(6, table) == 200 * 1024


def test_a_process_that_is_gone_or_a_system_that_does_not_say_has_no_peak(tmp_path):
    assert peak_bytes(77, table_of(tmp_path, [(9, 5, None)])) is None
    assert peak_bytes(9, tmp_path) is None
    assert (peak_bytes(1, NOWHERE), peaks_below(1, NOWHERE)) == (None, ())
