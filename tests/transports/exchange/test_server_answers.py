"""Answers that are no good."""

import dataclasses
import os

import pytest

from fccl.messages import ClientUpdate, OwnCorrection
from fccl.testing.toy import ToyLearner, adapter, shard
from fccl.testing.transport import task
from fccl.transports.exchange.client import ExchangeClient
from tests.transports.exchange_tools import (
    answered,
    clients,
    edit,
    finish,
    fit,
    folder,
    huge,
    linked,
    named,
    pipe,
    replace,
    until,
    with_nan,
)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (replace("update", b""), "client_1_round_0.safetensors has 0 bytes"),
        (replace("update", adapter(9.0, 9.0, 9.0).to_bytes()), "is not the file that its contribution speaks of"),
        (replace("contribution", b""), "is not JSON"),
        (replace("contribution", b"[1, 2]"), "is not a JSON object"),
        (replace("contribution", b"[" * 60_000), "is nested too deeply"),
        (replace("contribution", b"{" + b" " * 10**6 + b"}"), "bytes, at most 65,536"),
        (edit({"avg_loss": "1.0"}), "avg_loss: Input should be a valid number"),
        (edit({"avg_loss": float("nan")}), "avg_loss: Input should be a finite number"),
        (edit({"num_samples": True}), "num_samples: Input should be a valid integer"),
        (edit({"avg_loss": None}), "avg_loss"),
        (
            replace("contribution", b'{"client": 1, "round": 0, "avg_loss": 1.0, "num_samples": 2}'),
            "only the original fields",
        ),
        (edit({"num_samples": 0}), "num_samples"),
        (edit({"avg_loss": -1.0}), "avg_loss"),
        (edit({"adapter": {"sha256": "../../x", "length": 1}}), "adapter.sha256"),
        (edit({"version": True}), "version"),
        (edit({"version": 1}), "version"),
        (replace("contribution", b'{"version": 2, "version": 2}'), "names 'version' twice"),
        (edit({"client_id": "../../x"}), "client_id"),
        (edit({"extra": 1}), "extra"),
        (linked("update"), "client_1_round_0.safetensors is a symbolic link"),
        (linked("contribution"), "contrib_client_1_round_0.json is a symbolic link"),
        (pipe, "is not a regular file"),
        (folder, "is a folder"),
        (huge, "client_1_round_0.safetensors has 1,000,000,000 bytes"),
    ],
)
def test_a_broken_answer_is_refused_with_its_reason_and_moved_and_the_other_counts(paths, transport, spoil, reason):
    found, rejections = answered(paths, transport, spoil)
    assert isinstance(found[0], ClientUpdate)
    assert reason in found[1].reason
    assert [(rejection.client_id, rejection.round, rejection.run_id) for rejection in rejections] == [(1, 0, "run")]
    assert reason in rejections[0].reason
    assert sorted(rejections[0].files) == sorted(path.name for path in paths.answer(1, 0))
    assert not any(os.path.lexists(path) for path in paths.answer(1, 0))
    assert sorted(path.name.split("_", 1)[1] for path in paths.rejected.iterdir()) == sorted(
        [*rejections[0].files, "reason.json"]
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (adapter(1.0).to_bytes(), "w has shape (1,), expected (3,)"),
        (with_nan(), "not finite"),
        (adapter().to_bytes()[:-4], "bytes of numbers"),
        (b"not a file of tensors", "is not a safetensors file"),
    ],
)
def test_a_file_that_is_no_such_adapter_is_refused(paths, transport, content, reason):
    """Its hash is right: the client itself has sent it."""

    def spoil(paths, opened):
        replace("update", content)(paths, opened)
        named("adapter", content)(paths, opened)

    found, _ = answered(paths, transport, spoil)
    assert isinstance(found[0], ClientUpdate)
    assert reason in found[1].reason


def spoilt_control(content):
    """Its hash is right."""

    def spoil(paths, opened):
        replace("control", content)(paths, opened)
        named("control", content)(paths, opened)

    return spoil


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"run_id": "another"}, "the answer is of run_id 'another', asked was 'run'"),
        ({"round": 7}, "the answer is of round 7"),
        ({"phase": "va"}, "the answer is of phase 'va'"),
        ({"client_id": 0}, "the answer is of client_id 0"),
        ({"base_sha256": "0" * 64}, "began from another global adapter"),
    ],
)
def test_an_answer_to_something_else_counts_for_nothing_and_the_clients_own_may_still_come(
    paths, transport, changes, reason
):
    class Later(ToyLearner):
        """Whose answer does not take the place of the other one before the server has looked at that."""

        def fit(self, task, shard, on_status):
            until(lambda: paths.rejected.is_dir() and any(paths.rejected.glob("*reason.json")))
            return super().fit(task, shard, on_status)

    with clients(paths, {1: Later()}):
        found, rejections = answered_and_finished(paths, transport, edit(changes))
    assert isinstance(found[1], ClientUpdate)
    assert reason in rejections[0].reason


def answered_and_finished(paths, transport, spoil):
    """As `answered`; the real client is there and answers when its flag is gone."""
    with transport(timeout_s=60.0) as exchange:
        opened = exchange.open(task(), (0,))
        learner = ToyLearner()
        ExchangeClient(paths, 1, learner, shard).commit(opened, learner.fit(task(), shard(1), lambda status: None))
        spoil(paths, opened)
        found = fit(exchange, (1,))
        finish(exchange)
        return found, exchange.quarantine.rejections


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (edit({"control": None}), "the answer has no control variate, which AGGREGATION=scaffold needs"),
        (
            replace("control", adapter(9.0, 9.0, 9.0).to_bytes()),
            "control_client_1_round_0.safetensors is not the file that its contribution speaks of",
        ),
        (replace("control", b""), "control_client_1_round_0.safetensors has 0 bytes"),
        (lambda paths, opened: paths.control(1, 0).unlink(), "control_client_1_round_0.safetensors is missing"),
        (spoilt_control(with_nan()), "not finite"),
        (spoilt_control(adapter(1.0).to_bytes()), "w has shape (1,), expected (3,)"),
        (spoilt_control(b"not a file of tensors"), "is not a safetensors file"),
    ],
)
def test_a_control_variate_that_is_no_good_is_refused_with_the_update(paths, transport, spoil, reason):
    with transport(timeout_s=0.01) as exchange:
        asked = dataclasses.replace(task(), corrections=OwnCorrection(adapter()))
        opened = exchange.open(asked, (0, 1))
        for number in (0, 1):
            ExchangeClient(paths, number, ToyLearner(), shard).commit(
                opened, ToyLearner().fit(asked, shard(number), lambda status: None)
            )
        spoil(paths, opened)
        found = {answer.client_id: answer for answer in exchange.ask(asked, (0, 1))}
    assert found[0].control.load().sha256 == ToyLearner().fit(asked, shard(0), lambda status: None).control.sha256
    assert reason in found[1].reason
    assert not any(os.path.lexists(path) for path in paths.taken_away(1, 0))


def test_an_answer_is_taken_away_before_its_flag(paths, transport, monkeypatch):
    """A client that finds its flag gone answers anew at once: what it writes then must not meet the removal of what was
    there before.
    """
    seen, rename = [], os.rename

    def move(path, to):
        try:
            rename(path, to)
        finally:
            if path in paths.taken_away(1, 0):
                seen.append([path.exists() for path in paths.taken_away(1, 0)])

    monkeypatch.setattr(os, "rename", move)
    answered(paths, transport, edit({"round": 7}))
    assert seen == [[place > max(moved, 2) for place in range(6)] for moved in range(6)]


def test_files_with_names_of_no_client_are_moved_away(paths, transport):
    strangers = [
        "client_.._.._x_round_0.safetensors",
        "client_01_round_0.safetensors",
        "done_-1_0.flag",
        "contrib_client_1_round_0.json.bak",
        "client_7_round_0.safetensors",
        "client_7_round_0.pt",
    ]

    def spoil(paths, opened):
        for name in strangers:
            (paths.root / name).write_text("x")
        os.makedirs(paths.root / "client_.." / "x")

    found, rejections = answered(paths, transport, spoil)
    assert all(isinstance(answer, ClientUpdate) for answer in found.values())
    assert sorted(name for rejection in rejections for name in rejection.files) == sorted([*strangers, "client_.."])


def test_an_update_cannot_be_changed_after_it_was_checked(paths, transport):
    with transport() as exchange, clients(paths, {0: ToyLearner(), 1: ToyLearner()}):
        found = fit(exchange)
        expected = found[1].adapter.load().sha256
        adapter(9.0, 9.0, 9.0).save(paths.update(1, 0))
        assert found[1].adapter.load().sha256 == expected
        assert not found[1].adapter.path.exists(), "held in memory, so no file of it is asked"
        found[1].adapter.path.write_bytes(adapter(9.0, 9.0, 9.0).to_bytes())
        assert found[1].adapter.load().sha256 == expected
        finish(exchange)
