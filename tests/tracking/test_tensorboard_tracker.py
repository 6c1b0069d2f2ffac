"""Real event files, read back as TensorBoard reads them."""

import time
from collections import Counter

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from fccl.tracking.figures import base_figures, evaluation_figures, round_figures, step_of
from fccl.tracking.tracker import tracker_for
from tests.view.logs import BASE


def read(paths):
    events = EventAccumulator(str(paths.tensorboard), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    return events


def scalars(paths):
    events = read(paths)
    return {(tag, event.step): event.value for tag in events.Tags()["scalars"] for event in events.Scalars(tag)}


def resumed(told):
    """A tracker of a later second: readers order event files by the second in their names."""
    began = int(time.time())
    while int(time.time()) == began:
        time.sleep(0.05)
    return tracker_for("tensorboard", told.paths)


def expected(told, until=4):
    figures = {(name, 0): value for name, value in base_figures(BASE).items()}
    for record, metrics in told.rounds(until):
        figures |= {(name, step_of(record)): value for name, value in round_figures(record, metrics).items()}
    return figures


def test_event_files_hold_every_figure_of_every_round(told):
    tracker = tracker_for("tensorboard", told.paths)
    told.tell(tracker)
    tracker.evaluated(told.report)
    tracker.ended("finished")
    figures = expected(told) | {(name, 4): value for name, value in evaluation_figures(told.report).items()}
    assert scalars(told.paths) == pytest.approx(figures, rel=1e-6)
    times = {event.step: event.wall_time for event in read(told.paths).Scalars("round/seconds")}
    assert times == {step_of(record): record.time for record, _ in told.rounds()}


def test_settings_and_evaluation_are_there_to_read(told):
    tracker = tracker_for("tensorboard", told.paths)
    told.tell(tracker)
    tracker.evaluated(told.report)
    tracker.ended("finished")
    events = read(told.paths)
    settings = events.Tensors("settings/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| sft_lr | `0.004` |" in settings
    assert "# Evaluation" in events.Tensors("evaluation/text_summary")[0].tensor_proto.string_val[0].decode()
    session = metadata.parse_session_start_info_plugin_data(
        events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    )
    assert session.hparams["seed"].number_value == 7
    assert session.hparams["model_name"].string_value == "micro"


@pytest.mark.parametrize("end", ["killed", "interrupted"])
def test_a_resumed_run_has_every_round_once(told, end):
    first = tracker_for("tensorboard", told.paths)
    told.tell(first, until=3)
    if end == "interrupted":
        first.ended("interrupted")
    second = resumed(told)
    told.tell(second)
    second.ended("finished")
    assert scalars(told.paths) == pytest.approx(expected(told), rel=1e-6)
    events = read(told.paths)
    counts = Counter((tag, event.step) for tag in events.Tags()["scalars"] for event in events.Scalars(tag))
    assert set(counts.values()) == {1}


def test_a_tensorboard_that_is_looking_sees_every_round_once(told):
    first = tracker_for("tensorboard", told.paths)
    told.tell(first, until=3)
    looking = read(told.paths)
    assert [event.step for event in looking.Scalars("round/seconds")] == [1, 2, 3]
    second = resumed(told)
    told.tell(second)
    second.ended("finished")
    looking.Reload()
    assert [event.step for event in looking.Scalars("round/seconds")] == [1, 2, 3, 4]
