import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.federation.run_folder import RunFolder
from fccl.paths import ExchangePaths, LogPaths
from fccl.records.evaluation import Estimate, EvaluationOptions, EvaluationReport, ModelEvaluation, PreferenceResult
from fccl.records.journal import Journal
from fccl.records.run import ClientMetrics, RoundRecord, RunEvent, RunState
from fccl.storage.reading import read_records, read_value
from fccl.testing.toy import START, ToyLearner, federation
from fccl.view import runs
from fccl.view.runs import RunReader, list_runs, tail
from fccl.view.status import run_status
from tests.examples import few
from tests.view.logs import BASE, Logs, a_manifest, line
from tests.view.toy_runs import FILES, INFO, TABLES, same, toy_run


def test_a_real_run_is_what_its_records_say(tmp_path):
    paths = LogPaths(tmp_path)
    toy_run(paths, ToyLearner(broken=frozenset({2})))
    view = RunReader(paths).refresh()
    records = read_records(paths.progress, RoundRecord)
    assert (view.run_id, view.exists, view.unreadable) == ("run", True, 0)
    assert list(view.events) == read_records(paths.progress, RunEvent)
    assert (view.info, view.state, view.base) == (INFO, read_value(paths.state, RunState), BASE)
    assert len(records) == len(view.rounds) == 4
    for row, record in zip(view.rounds.itertuples(), records, strict=True):
        assert (row.round, row.phase, row.time, row.seconds) == (
            record.round,
            record.phase,
            record.time,
            record.seconds,
        )
        assert (row.selected, row.clients, row.excluded) == (4, 3, 1)
        assert (row.effective_clients, row.update_norm, row.adapter_sha256) == (
            record.effective_clients,
            record.update_norm,
            record.adapter_sha256,
        )
        shares = view.shares[view.shares["round"] == record.round]
        assert tuple(shares["client"]) == record.clients
        assert tuple(shares["weight"]) == record.weights
        assert tuple(shares["score"]) == record.scores
        assert tuple(shares["num_samples"]) == tuple(said.num_samples for said in record.contributions)
        assert tuple(shares["avg_loss"]) == tuple(said.avg_loss for said in record.contributions)
        assert sum(shares["sample_share"]) == pytest.approx(1)
    assert view.exclusions.values.tolist() == [
        [r.round, r.phase, out.client_id, out.reason] for r in records for out in r.excluded
    ]
    metrics = read_records(paths.client_metrics, ClientMetrics)
    assert len(metrics) == len(view.metrics) == 12
    for row, one in zip(view.metrics.rename(columns={"client": "client_id"}).to_dict("records"), metrics, strict=True):
        assert one.model_dump() == row | {"run_id": "run", "first_loss": None}
    assert [(status.client_id, status.state) for status in view.statuses if status.state == "failed"] == [(2, "failed")]
    assert [status.client_id for status in view.statuses] == [0, 1, 2, 3]


@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_run_has_no_round_twice(tmp_path, stop):
    paths = LogPaths(tmp_path)
    folder = toy_run(paths, ToyLearner(), stop)
    folder.journal.write(
        last_record(paths).model_copy(update={"round": stop})
    )  # written, but killed before the state was
    reader = RunReader(paths)
    before = reader.refresh()
    assert list(before.rounds["round"]) == list(range(stop + 1))
    toy_run(paths, ToyLearner(), resume=True)
    view = reader.refresh()
    assert list(view.rounds["round"]) == [0, 1, 2, 3]
    assert not view.shares.duplicated(["round", "client"]).any()
    assert not view.metrics.duplicated(["round", "client"]).any()
    assert [event.event for event in view.events] == ["started", "resumed"]
    same(view, RunReader(paths).refresh())


def last_record(paths):
    return read_records(paths.progress, RoundRecord)[-1]


@settings(max_examples=few(40), deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=12))
def test_logs_in_any_pieces_give_the_same_view(tmp_path_factory, cuts):
    whole = Logs(tmp_path_factory.mktemp("whole")).begin()
    for number in range(3):
        whole.round(number, excluded=(1,) if number == 1 else ())
    whole.append(whole.paths.progress, whole.record(3).model_copy(update={"run_id": "other"}))
    with open(whole.paths.client_metrics, "ab") as file:
        file.write(b'\xff\xfe\n{"event":\nhalf')
    contents = {path: path.read_bytes() for path in (whole.paths.progress, whole.paths.client_metrics)}
    grown = Logs(tmp_path_factory.mktemp("grown"))
    shutil.copy(whole.paths.run, grown.paths.run)
    shutil.copy(whole.paths.state, grown.paths.state)
    reader = RunReader(grown.paths)
    for first, share in sorted(cuts, key=lambda cut: cut[1]):
        path = whole.paths.progress if first else whole.paths.client_metrics
        (grown.root / path.name).write_bytes(
            contents[path][: int(share * len(contents[path]))]
        )  # the same file, longer each time
        view = reader.refresh()
        same(view, RunReader(grown.paths).refresh())
    for path, content in contents.items():
        (grown.root / path.name).write_bytes(content)
    view = reader.refresh()
    same(view, RunReader(whole.paths).refresh(), but=("paths",))
    assert view.unreadable == 2


def test_nothing_is_read_twice(logs, monkeypatch):
    logs.begin()
    logs.round(0)
    reader = RunReader(logs.paths)
    first = reader.refresh()
    fed = []
    monkeypatch.setattr(runs.MetricsLog, "feed", lambda self, lines: fed.extend(lines))
    second = reader.refresh()
    assert not fed
    assert all(getattr(first, name) is getattr(second, name) for name in TABLES)
    logs.append(logs.paths.client_metrics, logs.metrics(1, 0))
    reader.refresh()
    assert len(fed) == 1


@pytest.mark.parametrize("make", [lambda root: None, lambda root: root.mkdir(), lambda root: root.write_text("a file")])
def test_no_run(tmp_path, make):
    root = tmp_path / "logs"
    make(root)
    view = RunReader(LogPaths(root), ExchangePaths(root)).refresh()
    assert (view.exists, view.run_id, view.info, view.state, view.events, view.unreadable) == (
        False,
        "",
        None,
        None,
        (),
        0,
    )
    assert all(getattr(view, name).empty for name in TABLES)
    assert list_runs(root) == ()
    assert tail(view, "progress", 5) == tail(view, "client_metrics", 5) == []
    assert run_status(view, 1.0).standing == "waiting"


def test_a_state_of_another_run_or_of_no_run_is_none(logs):
    logs.begin()
    reader = RunReader(logs.paths)
    for state in (
        RunState(run_id="other", next_round=1, total_rounds=4, adapter_sha256=""),
        RunState(run_id="run", next_round=10**400, total_rounds=10**400, adapter_sha256=""),
    ):
        logs.paths.state.write_bytes(line(state))
        view = reader.refresh()
        assert view.state is None
        assert (run_status(view, 1001.0).total_rounds, run_status(view, 1001.0).round) == (4, 0)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff\xfe\x00", b'{"run_id": 5}\n', b"null\nnull\n"])
def test_a_file_that_is_not_what_it_should_be_hides_nothing_else(logs, name, content):
    logs.begin()
    logs.round(0)
    path = getattr(logs.paths, name)
    path.unlink(missing_ok=True)
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    view = RunReader(logs.paths).refresh()
    run_status(view, 1150.0)
    assert view.exists == (name != "run")
    assert len(view.rounds) == (name not in ("run", "progress"))
    assert len(view.metrics) == (3 if name not in ("run", "client_metrics") else 0)
    assert (view.evaluation, view.manifest) == (None, None)


@settings(max_examples=few(60), deadline=None)
@given(
    st.dictionaries(st.sampled_from([*FILES, "status"]), st.binary(max_size=80)),
    st.dictionaries(st.text(max_size=8), st.text(max_size=8)),
)
def test_garbage_anywhere_never_raises(tmp_path_factory, garbage, more):
    logs = Logs(tmp_path_factory.mktemp("logs"))
    logs.begin(**{name: value for name, value in more.items() if name.isidentifier()})
    logs.round(0)
    for name, content in garbage.items():
        path = logs.paths.status(1) if name == "status" else getattr(logs.paths, name)
        path.write_bytes(content)
    view = RunReader(logs.paths, ExchangePaths(logs.root)).refresh()
    run_status(view, 1100.0)
    assert len(list_runs(logs.root)) == view.exists
    tail(view, "progress", 3, "round")


def test_an_evaluation_and_a_manifest_are_values(logs):
    logs.begin()
    estimate = Estimate(value=1.0, low=0.5, high=2.0, n=9)
    preference = PreferenceResult(accuracy=estimate, right=1, wrong=1, ties=0)
    model = ModelEvaluation(
        name="base",
        adapter_sha256=None,
        perplexity=estimate,
        nll=estimate,
        tokens=9,
        preference=preference,
        preference_per_token=preference,
        margin=estimate,
        exact=None,
    )
    options = EvaluationOptions(
        gen_samples=0, gen_tokens=1, gen_temperature=1.0, bootstrap_samples=100, batch_size=1, seed=1
    )
    report = EvaluationReport(model="m", sft_examples=9, va_pairs=9, truncated=0, options=options, models=(model,))
    manifest = a_manifest()
    logs.paths.evaluation_json.write_bytes(line(report))
    logs.paths.manifest.write_bytes(line(manifest))
    view = RunReader(logs.paths).refresh()
    assert (view.evaluation, view.manifest) == (report, manifest)


def test_runs_are_listed_newest_first(logs):
    assert list_runs(logs.root) == ()
    for number, name in enumerate(("a", "c", "b")):
        folder = RunFolder(logs.paths, Journal(logs.paths))
        folder.archive()
        folder.start(
            INFO.model_copy(update={"run_id": name, "created": float(number)}), federation().plan, START.adapter
        )
    (logs.paths.archive / "broken").mkdir()
    (logs.paths.archive / "broken" / "run.json").write_text("{")
    (logs.paths.archive / "file").write_text("")
    entries = list_runs(logs.root)
    assert [(entry.run_id, entry.created, entry.current) for entry in entries] == [
        ("b", 2.0, True),
        ("c", 1.0, False),
        ("a", 0.0, False),
    ]
    assert [RunReader(entry.paths).refresh().run_id for entry in entries] == ["b", "c", "a"]


@settings(max_examples=few(150), deadline=None)
@given(
    st.lists(st.text(alphabet="abAB \r{é", max_size=12), max_size=30),
    st.integers(0, 6),
    st.sampled_from(["", "a", "B", "É", "{"]),
    st.integers(1, 9),
)
def test_the_tail_is_the_end_of_the_file(tmp_path_factory, lines, n, contains, block):
    logs = Logs(tmp_path_factory.mktemp("logs"))
    content = "\n".join(lines)
    logs.paths.progress.write_bytes(content.encode())
    view = RunReader(logs.paths).refresh()
    matching = [text for text in content.split("\n")[:-1] if text.strip() and contains.casefold() in text.casefold()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "_BLOCK", block)
        assert tail(view, "progress", n, contains) == (matching[-n:] if n else [])


def test_the_tail_of_a_long_file_is_bounded(logs, monkeypatch):
    logs.begin()
    logs.paths.client_metrics.write_bytes(b"needle\n" + b"hay\n" * 50_000)
    view = RunReader(logs.paths).refresh()
    assert tail(view, "client_metrics", 2, "NEEDLE") == ["needle"]
    monkeypatch.setattr(runs, "_MOST_TAIL", 100_000)
    assert tail(view, "client_metrics", 2, "NEEDLE") == []
    assert len(tail(view, "client_metrics", 10**6)) < 50_000
