import json

import pytest

from fccl.storage.reading import parse
from fccl.transports.exchange.wire import AdapterFile, OriginalContribution, TaskFile, UpdateFile
from tests.transports.exchange.contributions import ORIGINAL, TASK, VALID, as_json


@pytest.mark.parametrize("spelling", ["training_time", "train_time", "seconds", "duration"])
def test_spellings_of_the_original_fields(spelling):
    said = parse(as_json(ORIGINAL | {spelling: 2}), OriginalContribution, "it")
    assert (said.training_time, said.client) == (2, 1)
    assert parse(as_json({"client_id": 3, "avg_loss": 1, "num_samples": 1}), OriginalContribution, "it").client == 3


def test_what_is_signed_is_all_but_the_signature():
    one = UpdateFile.model_validate(VALID)
    assert one.signed_content() == one.model_copy(update={"signature": "x"}).signed_content()
    changed = VALID | {"run_id": "other", "round": 1, "phase": "va", "client_id": 2, "base_sha256": "0" * 64}
    changed |= {"adapter": AdapterFile.of(b"x"), "control": AdapterFile.of(b"x"), "lora_r": 3}
    changed |= {
        "avg_loss": 2.5,
        "num_samples": 3,
        "training_time": 1.5,
        "report": one.report.model_copy(update={"steps": 9}),
    }
    for name in set(changed) - {"version"}:
        assert one.model_copy(update={name: changed[name]}).signed_content() != one.signed_content()


def test_what_is_not_used_is_not_written_and_changes_no_signature():
    """A field that is added later, with a default, so changes no file of those who do not use it."""
    one = UpdateFile.model_validate(VALID)
    assert json.loads(one.written()).keys() == VALID.keys()
    spelt_out = VALID | {"control": None, "lora_r": None, "signature": ""}
    assert parse(as_json(spelt_out), UpdateFile, "it").signed_content() == one.signed_content()
    assert b"corrections" not in TASK.written()
    assert parse(TASK.written(), TaskFile, "it") == TASK
