"""The seal of a run: made when it is finished, again when it has gone on, and of nothing that others add to."""

import json
from itertools import islice

from fccl.federation.run import Run
from fccl.federation.run_folder import RunFolder
from fccl.federation.seal import is_as_sealed, seal_run, sealed_files
from fccl.records.seal import Seal
from fccl.storage.files import sha256_of
from fccl.storage.reading import read_value
from fccl.testing.toy import START, federation
from tests.federation.toy_runs import ROUNDS, conduct, toy_transport


def test_a_finished_run_is_sealed_with_the_line_that_says_so(tmp_path):
    logs, _ = conduct(tmp_path)
    seal = read_value(logs.seal, Seal)
    assert logs.seal.read_bytes() == seal.written()
    assert seal.files["progress.jsonl"].sha256 == sha256_of(logs.progress)
    assert json.loads(logs.progress.read_text().splitlines()[-1])["event"] == "finished"
    assert {f"kept/round_{number}/round.json" for number in range(ROUNDS)} <= seal.files.keys()
    assert seal.files.keys() == {path.relative_to(logs.root).as_posix() for path in sealed_files(logs)}
    assert all(is_as_sealed(logs.root / name, said, grows=False) for name, said in seal.files.items())


def test_a_run_that_is_not_finished_has_no_seal(tmp_path):
    run = Run(federation(), RunFolder.at(tmp_path / "logs"), lambda: START.adapter)
    list(islice(run.rounds(toy_transport()), 2))
    assert not run.folder.paths.seal.exists()


def test_a_run_that_goes_on_from_a_kill_before_its_last_line_is_sealed_anew(tmp_path):
    logs, _ = conduct(tmp_path)
    first = logs.seal.read_bytes()
    *lines, _ = logs.progress.read_text().splitlines(keepends=True)
    logs.progress.write_text("".join(lines))
    run = Run(federation(), RunFolder.at(logs.root), lambda: START.adapter)
    assert list(run.rounds(toy_transport(), resume=True)) == []
    run.finish(toy_transport())
    assert logs.seal.read_bytes() != first
    assert read_value(logs.seal, Seal).files["progress.jsonl"].sha256 == sha256_of(logs.progress)


def test_the_same_files_have_the_same_seal_and_the_signature_is_over_it(tmp_path):
    logs, _ = conduct(tmp_path)
    one, other = (seal_run(logs, "run", "last", sign) for sign in (None, lambda content: content.hex()[:20]))
    assert other.signature == one.signed_content().hex()[:20]
    assert one.signed_content() == other.signed_content()
