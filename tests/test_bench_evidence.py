"""`benchmarks/bench_evidence.py`: what it compares, and that its first table is a part of the whole."""

from argparse import Namespace
from pathlib import Path

from benchmarks.bench_evidence import SIZE, arguments
from fccl.apps.arguments import parse
from fccl.apps.compare_choice import chosen, with_defaults
from fccl.config import load_settings


def choice(first, jobs, clients=4):
    asked = Namespace(first=first, jobs=jobs, out=Path("out"), sft_data="sft.json", va_data="va.json")
    command, *rest = arguments(Path("model"), asked, clients)
    given, options = parse(command, rest)
    settings = with_defaults(load_settings(given), quick=False)
    return settings, chosen(settings, options)


def test_the_first_table_is_of_trials_that_the_whole_has_too():
    (settings, first), (others, whole) = choice(True, 1), choice(False, 2)
    for part in ("scenarios", "methods"):
        few, all_of_them = ({each.name for each in getattr(one, part)} for one in (first, whole))
        assert few < all_of_them
    assert set(first.seeds) < set(whole.seeds)
    assert settings == others


def test_it_has_the_new_rule_the_default_server_learning_both_together_and_the_ceilings():
    _, whole = choice(False, 2)
    names = {method.name for method in whole.methods}
    assert names == {"pooled", "fedavg", "fedavg-server", "verified", "tempered", "tempered-server", "oracle"}
    assert {"sft", "va"} == {scenario.phase for scenario in whole.scenarios}
    assert any(scenario.server.topics for scenario in whole.scenarios)
    assert len(whole.seeds) == 3


def test_the_sizes_are_those_that_are_told():
    settings, _ = choice(False, 2, clients=8)
    assert {name: getattr(settings, name) for name in SIZE} == SIZE
    assert (settings.num_clients, settings.threads) == (8, 1)
