"""What will not fit is said with the setting to change, and with nothing else."""

import pytest

from fccl.config import load_settings
from fccl.federation.workload import KeptSpace
from fccl.library.obstacles import Room, free_disk, obstacles
from fccl.records.forecast import ProcessForecast

GB = 10**9
PLENTY = Room(memory=100 * GB, free=100 * GB, disk=100 * GB)
WHOLE = KeptSpace(rounds=6, size=6 * 10**6, whole=6 * 10**6)


def found(processes=(), kept=WHOLE, needed=0, room=PLENTY, **settings):
    return obstacles(load_settings(settings), processes, kept, needed, room)


def layout(server, clients, count):
    return (
        ProcessForecast(name="server", count=1, peak=server),
        ProcessForecast(name="clients", count=count, peak=clients),
    )


def test_where_everything_fits_there_is_none():
    assert found(layout(GB, GB, 4), needed=GB) == ()


@pytest.mark.parametrize(
    ("processes", "hint"),
    [
        (layout(GB, 2 * GB, 4), "CLIENT_PROCESSES=3 needs less"),
        (layout(GB, 4 * GB, 2), "CLIENT_PROCESSES=1 needs less"),
        (layout(GB, 9 * GB, 1), "MICRO_BATCH_SIZE=4 needs less and gives the same sums"),
    ],
)
def test_memory_is_won_by_fewer_processes_and_then_by_smaller_steps(processes, hint):
    (obstacle,) = found(processes, room=Room(memory=8 * GB, free=None, disk=GB))
    assert "8.0 GB" in obstacle.what
    assert obstacle.hint == hint


def test_a_step_of_one_example_cannot_be_smaller():
    (obstacle,) = found(layout(GB, 9 * GB, 1), room=Room(memory=8 * GB, free=None, disk=GB), micro_batch_size=1)
    assert obstacle.hint == "a smaller MAX_LENGTH or model needs less"


def test_memory_that_others_hold_is_told_from_memory_that_is_not_there():
    (obstacle,) = found(layout(GB, GB, 1), room=Room(memory=8 * GB, free=GB, disk=GB))
    assert obstacle.what == "memory: 2.0 GB are needed, 1.0 GB are free now"


def test_a_disk_that_is_too_small_gets_the_number_of_megabytes_that_would_fit():
    (obstacle,) = found(needed=10 * 10**6, room=Room(memory=GB, free=GB, disk=8 * 10**6))
    assert obstacle.hint == "KEEP_UPDATES_MB=4 needs less"


def test_rounds_that_will_not_be_kept_are_said_before_with_the_number_that_keeps_them():
    (obstacle,) = found(kept=KeptSpace(rounds=2, size=2 * 10**6, whole=6_500_000), keep_updates_mb=3)
    assert (obstacle.what, obstacle.hint) == (
        "kept updates: there is room for the last 2 rounds",
        "KEEP_UPDATES_MB=7 keeps all of them",
    )
    assert found(kept=KeptSpace(rounds=0, size=0, whole=6_500_000), keep_updates_mb=0) == ()  # as it was asked for


def test_the_disk_of_a_folder_that_is_not_there_is_that_of_the_nearest_that_is(tmp_path):
    assert free_disk(tmp_path / "a" / "b") > 0
