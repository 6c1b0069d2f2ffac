import ast
import textwrap

import pytest

from benchmarks import mutants
from benchmarks.mutants import Mutation, judged, mirrored, mutations, sample


def changed(line):
    source = textwrap.dedent(line).encode()
    return {one.applied(source).decode() for one in mutations(source)}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("x = a + b", {"x = a - b"}),
        ("x = é / b", {"x = é * b"}),
        ("x = (a) < b <= c", {"x = (a) <= b <= c", "x = (a) < b < c"}),
        ("x = a in b and c", {"x = a not in b and c", "x = a in b or c"}),
        ("x = not a", {"x = (a)"}),
        ("x = 7", {"x = 8"}),
        ("x = True", {"x = False"}),
        ("f(a)", {"pass"}),
        ("x += y", {"pass"}),
        ("x = a if b else c", {"x = a if (not (b)) else c"}),
        ("def f(): return None", set()),
        ("def f(): return a", {"def f(): return None"}),
        ('x = "a + 1"', set()),
    ],
)
def test_a_mutation_changes_one_piece_of_one_line(line, expected):
    assert changed(line) == expected


def test_all_mutations_of_the_arithmetic_are_programs_that_differ():
    for mutation in sample(60, 3):
        source = (mutants.ROOT / mutation.module).read_bytes()
        assert mutation.applied(source) != source
        ast.parse(mutation.applied(source))


def test_the_same_seed_draws_the_same_mutations():
    assert sample(20, 5) == sample(20, 5) != sample(20, 6)


def test_a_module_without_tests_of_its_name_has_its_folders():
    assert mirrored("fccl/aggregation/krum.py") == ["tests/aggregation/test_krum.py"]
    assert mirrored("fccl/aggregation/protocol.py") == ["tests/aggregation"]


def test_a_verdict_is_kept_and_not_sought_again(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(mutants, "COPIED", ())
    monkeypatch.setattr(mutants, "verdict", lambda mutation, *_: asked.append(mutation) or "survived")
    chosen = sample(3, 1)
    for _ in range(2):
        assert judged(chosen, tmp_path / "out.jsonl", 1.0) == dict.fromkeys(chosen, "survived")
    assert asked == chosen


def test_a_mutation_that_breaks_a_module_is_caught_and_the_module_is_put_back(tmp_path):
    module, test = tmp_path / "fccl" / "training" / "x.py", tmp_path / "tests" / "training" / "test_x.py"
    for path, content in ((module, "def half(x):\n    return x / 2\n"), (test, "")):
        path.parent.mkdir(parents=True)
        path.write_text(content)
    test.write_text(
        f"import sys\nsys.path.insert(0, {str(module.parent)!r})\nfrom x import half\n\n"
        "def test_half():\n    assert half(4) == 2\n"
    )
    fatal, harmless = (
        Mutation("fccl/training/x.py", 2, 11, 12, "x", "3"),
        Mutation("fccl/training/x.py", 2, 0, 0, "", ""),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mutants, "mirrored", lambda module: [str(test)])
        assert mutants.verdict(fatal, tmp_path, 60.0) == "caught"
        assert mutants.verdict(harmless, tmp_path, 60.0) == "survived"
    assert module.read_text() == "def half(x):\n    return x / 2\n"
