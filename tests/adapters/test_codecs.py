"""Codecs against formulas that are written out here: the lengths, the rounding, what is left out."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.adapters.adapter import Form
from fccl.adapters.codecs import SCALES, codec_of
from fccl.errors import AdapterError
from fccl.specs.codecs import CODECS, CodecSpec
from tests.examples import few

LOSSY = [name for name in CODECS if name != "fp32"]
FORMS = st.builds(
    lambda fan_in, fan_out, rank, odd: Form(
        {"m.lora_A.weight": (rank, fan_in), "m.lora_B.weight": (fan_out, rank), "n": (odd,), "s": ()}
    ),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 4),
    st.integers(0, 5),
)


@st.composite
def changes(draw):
    """A form, and a change of it: mostly small numbers, some zero, some large."""
    form = draw(FORMS)
    count = sum(int(np.prod(shape)) for shape in form.shapes.values())
    numbers = st.floats(-1e6, 1e6, width=32) | st.just(0.0) | st.floats(-(2.0**-10), 2.0**-10, width=32)
    return form, torch.tensor(draw(st.lists(numbers, min_size=count, max_size=count)), dtype=torch.float32)


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


def there_and_back(name, change, form, seed=1, share=0.5):
    codec = codec_of(CodecSpec(name=name, share=share))
    content = codec.encode(change, form, generator(seed))
    assert len(content) == codec.length(form)
    return codec.decode(content, form)


def directions(change, form):
    """Every direction's numbers and their place in the vector, found with numpy's own indices."""
    place, where = 0, np.arange(len(change))
    for name, shape in sorted(form.shapes.items()):
        count = int(np.prod(shape))
        block = where[place : place + count].reshape(shape)
        place += count
        if len(shape) != 2:
            yield block.reshape(-1)
        else:
            yield from (block.T if "lora_B" in name else block)


@settings(max_examples=few(100))
@given(changes())
def test_every_codec_has_the_length_that_its_form_says_and_keeps_the_form(case):
    form, change = case
    for name in LOSSY:
        assert there_and_back(name, change, form).shape == change.shape


@settings(max_examples=few(100))
@given(changes())
def test_fp16_is_torch_s_own_rounding(case):
    form, change = case
    assert torch.equal(there_and_back("fp16", change, form), change.clamp(-65504, 65504).half().float())


@settings(max_examples=few(150))
@given(changes(), st.sampled_from([("int8", 127), ("int4", 7)]), st.integers(0, 2**63 - 1))
def test_an_integer_is_one_of_the_two_neighbours_of_its_number(case, codec, seed):
    (form, change), (name, most) = case, codec
    found = there_and_back(name, change, form, seed).numpy()
    for place in directions(change, form):
        sizes = np.abs(change.numpy()[place])
        step = sizes.max(initial=0) / most
        assert (np.abs(found[place] - change.numpy()[place]) <= step * (1 + 1e-5) + 1e-37).all()
        assert (np.abs(found[place]) <= sizes.max(initial=0) * (1 + 1e-6)).all()


@pytest.mark.parametrize(("name", "most"), [("int8", 127), ("int4", 7)])
def test_rounding_is_right_on_average(name, most):
    """10,000 numbers of 0.3 steps each round to 0 or 1 step: their mean has the deviation sqrt(0.3 · 0.7 / 10,000)."""
    change = torch.full((10_001,), 0.3 / most)
    change[0] = 1.0  # sets the scale
    steps = there_and_back(name, change, Form({"n": (10_001,)}), seed=3)[1:] * most
    assert {round(float(step), 3) for step in steps.unique()} == {0.0, 1.0}
    assert abs(float(steps.mean()) - 0.3) < 5 * (0.3 * 0.7 / 10_000) ** 0.5


@settings(max_examples=few(150))
@given(changes(), st.floats(0.01, 1.0))
def test_topk_sends_the_largest_to_half_a_step_and_the_first_of_equal_ones(case, share):
    form, change = case
    found, kept = there_and_back("topk", change, form, share=share).numpy(), max(1, int(np.ceil(share * len(change))))
    order = sorted(range(len(change)), key=lambda place: (-abs(float(change[place])), place))
    wanted = np.zeros(len(change), np.float32)
    wanted[order[:kept]] = change.numpy()[order[:kept]]
    assert not found[order[kept:]].any()
    for place in directions(change, form):
        half = np.abs(wanted[place]).max(initial=0) / 7 / 2
        assert (np.abs(found[place] - wanted[place]) <= half * (1 + 1e-5) + 1e-37).all()


@settings(max_examples=few(150))
@given(changes())
def test_int3_has_integers_up_to_3_of_the_scale_that_leaves_the_least_squares(case):
    """Against numpy in float64: no scale of those that are tried would have left less."""
    form, change = case
    found = there_and_back("int3", change, form).double().numpy()
    for place in directions(change, form):
        exact = change.numpy()[place].astype(np.float64)
        largest = np.abs(exact).max(initial=0) / 3
        left = [
            np.square(exact - step * np.clip(np.round(exact / max(step, 1e-37)), -3, 3)).sum()
            for step in (largest * share for share in SCALES)
        ]
        least = min(left) * (1 + 1e-4) + 1e-11 * np.square(exact).sum() + 1e-30
        assert np.square(exact - found[place]).sum() <= least
        assert len(np.unique(np.abs(found[place]))) <= 4


@settings(max_examples=few(100))
@given(changes(), st.sampled_from(["int8", "int4", "int3"]), st.integers(0, 2**63 - 1))
def test_the_same_seed_gives_the_same_bytes_whatever_number_of_threads_torch_has(case, name, seed):
    form, change = case
    codec, before, found = codec_of(CodecSpec(name=name)), torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(codec.encode(change, form, generator(seed)))
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("name", "place", "value", "said"),
    [
        ("int8", 7, 0x7F, "scale"),  # the highest byte of the last scale: a NaN with what follows
        ("int8", 8, 0x80, "beyond 127"),
        ("int4", 8, 0xFF, "beyond 7"),
        ("int4", 9, 0xF7, "half byte"),
        ("int3", 8, 0xFF, "beyond 3"),
        ("int3", 9, 0x80, "after its last"),
        ("topk", 0, 0xFF, "does not mark"),
    ],
)
def test_bytes_that_no_encoder_writes_are_refused(name, place, value, said):
    form = Form({"n": (2,), "o": (1,)})
    codec = codec_of(CodecSpec(name=name, share=0.3))
    content = bytearray(codec.encode(torch.tensor([1.0, -1.0, 0.5]), form, generator()))
    content[place] = value
    if said == "scale":
        content[4:8] = b"\0\0\xc0\x7f"
    with pytest.raises(AdapterError, match=said):
        codec.decode(bytes(content), form)
