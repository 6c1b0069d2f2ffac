import pytest

import fccl
from fccl.errors import SettingsError


@pytest.mark.parametrize(
    ("make", "arguments", "said", "hint"),
    [
        (fccl.Orchestrator, {"client_id": 1}, "fccl.Orchestrator does not read client_id", "fccl.Client"),
        (fccl.Orchestrator, {"cache_mb": 1}, "fccl.Orchestrator does not read cache_mb", "fccl.Client"),
        (fccl.Client, {"keep_rounds": 1}, "fccl.Client does not read keep_rounds", "fccl.Orchestrator"),
        (fccl.prepare, {"lora_r": 4}, "fccl.prepare does not read lora_r", "fccl.FederatedRun, fccl.Orchestrator"),
    ],
)
def test_a_setting_given_to_the_wrong_one_is_one_line_that_says_who_reads_it(
    make, arguments, said, hint, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError) as caught:
        make(**arguments)
    assert (str(caught.value), caught.value.hint) == (said, f"leave it out; it is read by {hint}")
    assert list(tmp_path.iterdir()) == []
