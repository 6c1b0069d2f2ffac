"""A report on a run's rounds."""

from fccl.pages.report.run import facts
from fccl.records.run import KeptWatch, RunState
from fccl.storage.files import write_text
from fccl.view.runs import RunReader
from tests.view.logs import Logs


def facts_of(logs, **fields):
    state = RunState(run_id=logs.run_id, next_round=4, total_rounds=4, adapter_sha256="a" * 64, **fields)
    write_text(logs.paths.state, state.model_dump_json())
    return dict(facts(RunReader(logs.paths).refresh()))


def test_a_phase_that_patience_has_ended_and_the_best_round_are_said(tmp_path):
    logs, best = Logs(tmp_path).begin(), KeptWatch(best_round=2, best_loss=1.0, best_sha256="b" * 64)
    plain = facts_of(logs)
    assert plain["Rounds"] == "2 of FedIT (SFT), 2 of FedVA (DPO)"
    assert "Result" not in plain
    ended = facts_of(logs, sft_rounds=1, early={"sft": 1}, watch=best)
    assert ended["Rounds"] == "1 of FedIT (SFT), 3 of FedVA (DPO); FedIT ended by PATIENCE"
    assert ended["Result"] == "the adapter of round 3, of the lowest validation loss"
