"""A forecast as tables: sums are sums, what nobody measured is a dash, and errors are shares of the actual figure."""

from fccl.display.words import DASH
from fccl.records.forecast import (
    Forecast,
    Obstacle,
    ProcessForecast,
    RoundForecast,
    SpaceForecast,
    TrafficForecast,
    Usage,
)
from fccl.records.run import RoundSeconds
from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.transports.in_process import InProcessTransport
from fccl.view.forecast_tables import Actual, after_table, plan_tables

SECONDS = RoundSeconds(training=3.0, verification=1.0, validation=0.5, rest=0.5)
FORECAST = Forecast(
    created=1.0,
    settings={},
    rounds=tuple(
        RoundForecast(round=number, phase="sft", clients=(0, 1), steps=10, tokens=100, seconds=SECONDS)
        for number in range(2)
    ),
    start=1.0,
    finish=1.0,
    evaluation=8.0,
    processes=(ProcessForecast(name="server", count=1, peak=100), ProcessForecast(name="clients", count=2, peak=50)),
    space=(
        SpaceForecast(name="kept updates", size=900, exact=True),
        SpaceForecast(name="records", size=100, exact=False),
    ),
    traffic=(TrafficForecast(phase="sft", down=30, up=20),),
    obstacles=(Obstacle(what="disk: too small", hint="KEEP_UPDATES_MB=1"),),
)


def tables(forecast):
    return {table.title: [tuple(cell.text for cell in row) for row in table.cells] for table in plan_tables(forecast)}


def test_all_parts_of_a_plan_have_their_place():
    found = tables(FORECAST)
    assert found["Time"][0] == ("FedIT (SFT)", "2", "20", "3.0 s", "1.0 s", "0.5 s", "0.5 s", "5.0 s", "10 s")
    assert found["Time"][-1][-1] == "20 s"
    assert ("memory, all processes", "200 B", "pages that they share count in each") in found["Memory and disk"]
    assert ("disk, in all", "1.0 kB", "") in found["Memory and disk"]
    assert found["What a client receives and sends in a round"][0] == ("FedIT (SFT)", "30 B", "20 B", "2", "100 B")
    assert found["What will not fit"] == [("disk: too small", "KEEP_UPDATES_MB=1")]


def test_without_a_probe_steps_are_told_and_seconds_are_a_dash():
    rounds = tuple(each.model_copy(update={"seconds": None}) for each in FORECAST.rounds)
    untried = Forecast(created=1.0, settings={}, rounds=rounds)
    row = tables(untried)["Time"][0]
    assert (row[2], set(row[3:])) == ("20", {DASH})
    assert (untried.seconds, untried.memory, untried.size) == (None, 0, 0)


def test_after_a_run_each_figure_stands_beside_what_it_was():
    record = next(iter(federation(clients=2, rounds=1).run(START, InProcessTransport(ToyLearner(), shard)))).record
    done = [record.model_copy(update={"seconds": 10.0, "spent": SECONDS})] * 2
    usage = Usage(run_id="r", evaluation=4.0, server=80, workers=(40, 25))
    rows = after_table(FORECAST, Actual(done, [], 2.0, 1000, 900, usage)).cells
    found = {row[0].text: tuple(cell.text for cell in row[1:]) for row in rows}
    assert found["FedIT (SFT): in all"] == ("10.0 s", "20.0 s", "-50 %")
    assert found["FedIT (SFT): training"] == ("6.0 s", "6.0 s", "+0 %")
    assert found["evaluation"] == ("8.0 s", "4.0 s", "+100 %")
    assert found["time in all"] == ("20.0 s", "26.0 s", "-23 %")
    assert found["memory, server"] == ("100 B", "80 B", "+25 %")
    assert found["memory, clients (2 processes)"] == ("50 B", "40 B", "+25 %")
    assert found["disk, adapters and updates"] == ("900 B", "900 B", "+0 %")


def test_a_run_that_says_less_gets_dashes_and_one_that_stopped_early_a_note():
    record = next(iter(federation(clients=2, rounds=1).run(START, InProcessTransport(ToyLearner(), shard)))).record
    table = after_table(FORECAST, Actual([record], [], None, 0, 0, None))
    found = {row[0].text: row[2].text for row in table.cells}
    assert {found[name] for name in ("start and end", "evaluation", "time in all", "memory, server")} == {DASH}
    assert table.note == "2 rounds planned, 1 done."


def test_figures_that_privacy_withholds_are_a_dash_and_no_zero():
    record = next(iter(federation(clients=2, rounds=1).run(START, InProcessTransport(ToyLearner(), shard)))).record
    withheld = record.model_copy(update={"seconds": 0.0, "spent": None})
    table = after_table(FORECAST, Actual([withheld], [], 2.0, 0, 0, Usage(run_id="r", evaluation=4.0)))
    found = {row[0].text: row[2].text for row in table.cells}
    hidden = ("FedIT (SFT): in all", "time in all", "steps", "memory, server", "memory, clients (2 processes)")
    assert {found[name] for name in hidden} == {DASH}
    assert found["evaluation"] == "4.0 s"
