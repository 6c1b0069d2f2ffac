"""Reading files of `torch.save`. For good ones torch's own safe reader is the reference; hostile ones take nothing."""

import os
import pickle
import re
import struct
import tracemalloc
from collections import Counter, OrderedDict, defaultdict
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import get_peft_model_state_dict

from fccl.adapters.torch_files import read_torch_file, torch_bytes
from fccl.errors import AdapterError
from tests.adapters.test_adapter import mappings
from tests.adapters.torch_zip import by_torch, fuzz, opened, refused, same, saved, zipped
from tests.examples import few

# --- files that adapters are in


@settings(max_examples=few(40))
@given(mappings, st.sampled_from([dict, OrderedDict]), st.sampled_from([bytes, bytearray]))
def test_a_dict_of_tensors_is_read_as_torch_reads_it(mapping, kind, content):
    written = content(saved(kind(mapping)))
    assert same(read_torch_file(written, "it"), by_torch(written))
    assert same(read_torch_file(torch_bytes(mapping), "it"), mapping)


flat = torch.arange(64.0)
views = {
    "a slice": {"a": flat[3:9]},
    "every second row": {"a": flat.view(8, 8)[::2]},
    "transposed": {"a": flat.view(4, 16).T},
    "a column": {"a": flat.view(8, 8)[:, 3:5]},
    "a scalar": {"a": flat[7]},
    "pieces of one buffer": {"a": flat[:32].view(4, 8), "b": flat[32:].view(8, 4).T},
    "a convolution": {"a": torch.randn(2, 3, 1, 1), "b": torch.randn(2, 2, 1, 1, 1)},
    "a parameter": {"a": torch.nn.Parameter(torch.randn(2, 3)), "b": torch.nn.Parameter(torch.randn(2), False)},
    "with a gradient": {"a": torch.randn(2, 3, requires_grad=True)},
    "a module's state": torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LayerNorm(3)).state_dict(),
    "many": {f"layer.{index}": torch.randn(1) for index in range(400)},
    "long names": {"x" * 700 + str(index): torch.randn(2) for index in range(20)},
}


@pytest.mark.parametrize("tensors", views.values(), ids=views.keys())
def test_whatever_a_tensor_is_a_view_of_its_numbers_are_read(tensors, tmp_path):
    torch.save(tensors, tmp_path / "client_1_round_0.pt")  # the file's own name is in it then
    for content in (saved(tensors), (tmp_path / "client_1_round_0.pt").read_bytes()):
        found = read_torch_file(content, "it")
        assert same(found, by_torch(content))
        assert all(tensor.is_contiguous() and not tensor.requires_grad for tensor in found.values())


def test_real_adapters_pass_however_they_were_collected(micro_peft):
    named = {name: value for name, value in micro_peft.named_parameters() if "lora_" in name}
    ordered = OrderedDict((name, value) for name, value in micro_peft.state_dict().items() if "lora_" in name)
    assert next(iter(named)) == "base_model.model.transformer.h.0.attn.c_attn.lora_A.default.weight"
    for adapter in (get_peft_model_state_dict(micro_peft), named, ordered):
        content = saved(adapter)
        assert same(read_torch_file(content, "it"), by_torch(content))


@pytest.fixture(scope="module")
def micro_peft():
    from peft import LoraConfig, get_peft_model
    from transformers import GPT2Config, GPT2LMHeadModel

    base = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=32, n_positions=32))
    return get_peft_model(base, LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM"))


def test_older_versions_wrote_fewer_records():
    """torch 1.13: the program, the numbers and the version, no more; the program is the same."""
    tensors = {"a": torch.randn(2, 3), "b": torch.randn(300)}
    program, records = opened(saved(tensors))
    assert same(read_torch_file(zipped(program, records), "it"), tensors)


# --- programs that do something else


class Calls:
    def __init__(self, called, *arguments):
        self.reduced = called, arguments

    def __reduce__(self):
        return self.reduced


def made(called, *arguments):
    return pickle.dumps(Calls(called, *arguments), 2)


BOMB = b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x80\x01\x85R."  # bytearray(6 * 2**30)
CALLS = [
    BOMB,
    made(bytearray, 6 * 2**30),
    made(bytes, 2**40),
    made(os.system, "echo it ran"),
    made(eval, "print('it ran')"),
    made(exec, "print('it ran')"),
    made(getattr, "x", "upper"),
    made(print, "it ran"),
    made(torch.empty, 2**40),
    made(torch.zeros, (2**20, 2**20)),
    made(torch.FloatStorage, 2**40),
    made(torch.nn.Parameter, 1),
    made(np.zeros, 2**40),
    made(Counter, "a"),
    made(defaultdict, list),
    made(OrderedDict, [("a", 1)]),
    made(torch._utils._rebuild_tensor_v2, 1, 2, 3),
    made(torch._utils._rebuild_parameter, 1, True, {}),
    made(torch._utils._rebuild_sparse_tensor, torch.sparse_coo, (1, 2, 3)),
    made(complex, 1, 2),
    pickle.dumps(range(10**12), 2),
    pickle.dumps({"a": b"x" * 100}, 2),
    pickle.dumps({"a": {1, 2}}, 2),
    pickle.dumps(slice(1, 2), 2),
]


@pytest.mark.parametrize("program", CALLS)
@pytest.mark.parametrize("nested", [False, True])
def test_nothing_is_called(program, nested, capfd):
    if nested:  # beside a good tensor
        good, records = opened(saved({"b": torch.zeros(2)}))
        content = zipped(good[:-1] + b"X\x01\x00\x00\x00a" + program[2:-1] + b"s.", records)
    else:
        content = zipped(program)
    tracemalloc.start()
    refused(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000
    assert capfd.readouterr() == ("", "")


# Every instruction that pickle has, with an argument that it may have.
INSTRUCTIONS = [
    *(bytes([code]) for code in b"(.012NRQbeaos})]tlduq\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94\x97\x98"),
    *(
        b"I1\n",
        b"I01\n",
        b"L1L\n",
        b"F1.5\n",
        b"S'a'\n",
        b"Vabc\n",
        b"Pabc\n",
        b"g0\n",
        b"p0\n",
        b"icollections\nOrderedDict\n",
    ),
    *(
        b"J\xff\xff\xff\xff",
        b"J\x05\x00\x00\x00",
        b"K\x02",
        b"M\x01\x02",
        b"G" + bytes(8),
        b"\x8a\x01\x05",
        b"\x8b\x01\x00\x00\x00\x05",
    ),
    *(b"T\x01\x00\x00\x00a", b"U\x01a", b"B\x01\x00\x00\x00a", b"C\x01a", b"X\x01\x00\x00\x00a", b"\x8c\x01a"),
    *(b"\x8d" + struct.pack("<Q", 2**60), b"\x8e" + struct.pack("<Q", 2**60), b"\x96" + struct.pack("<Q", 2**60)),
    *(
        b"X\xff\xff\xff\x7f",
        b"\x8b\xff\xff\xff\x7f",
        b"\x95" + struct.pack("<Q", 2**60),
        b"\x80\x02",
        b"\x80\x04",
        b"\x80\x05",
    ),
    *(
        b"h\x00",
        b"h\x01",
        b"j\x02\x00\x00\x00",
        b"q\x00",
        b"q\x01",
        b"r\xff\xff\xff\x7f",
        b"\x82\x01",
        b"\x83\x01\x00",
        b"\x84\x01\x00\x00\x00",
    ),
    *(b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_parameter\n"),
    *(
        b"ctorch\nFloatStorage\n",
        b"cbuiltins\nbytearray\n",
        b"X\x07\x00\x00\x00storage",
        b"X\x01\x00\x00\x000",
        b"X\x03\x00\x00\x00cpu",
    ),
]


@fuzz
@given(st.lists(st.sampled_from(INSTRUCTIONS), max_size=40), st.booleans())
def test_arbitrary_programs_make_what_torch_would_make_or_nothing(program, begun):
    good, records = opened(saved({"a": torch.arange(6.0).view(2, 3)}))
    content = zipped((good[:-1] if begun else b"\x80\x02") + b"".join(program) + b".", records)
    with suppress(AdapterError):
        found = read_torch_file(content, "it")
        assert same(found, by_torch(content))


@fuzz
@given(st.data())
def test_a_changed_program_makes_what_torch_would_make_or_nothing(data):
    ordered = OrderedDict({"a": torch.arange(6.0).view(2, 3).T, "b": torch.nn.Parameter(torch.arange(6.0))})
    program, records = opened(saved(ordered))
    changed = bytearray(program)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(changed) - 1))
        what = data.draw(st.sampled_from(["change", "insert", "delete"]))
        new = b"" if what == "delete" else data.draw(st.sampled_from(INSTRUCTIONS) | st.binary(min_size=1, max_size=1))
        changed[place : place + (what != "insert")] = new
    content = zipped(bytes(changed), records)
    with suppress(AdapterError):
        found = read_torch_file(content, "it")
        assert same(found, by_torch(content))


@given(st.binary(max_size=300), st.booleans())
def test_arbitrary_bytes_are_refused(content, as_program):
    refused(zipped(content) if as_program else b"PK\x03\x04" + content)


TWICE = b")q\x00" + b"h\x00\x86q\x00" * 60  # a tuple that holds itself twice, sixty times over
PROGRAMS = {
    "recursion": (b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.", "does not hold named tensors"),
    "2^60 references": (b"\x80\x02" + TWICE + b".", "does not hold named tensors"),
    "2^60 references as a name": (b"\x80\x02}" + TWICE + b"K\x01s.", "does not hold named tensors"),
    "a list": (pickle.dumps([1], 2), "instruction EMPTY_LIST"),
    "deep": (b"\x80\x02)" + b"\x85" * 30_000 + b".", "does not hold named tensors"),
    "marks": (b"\x80\x02" + b"(" * 30_000 + b".", "not a readable adapter file"),
    "an unfinished one": (b"\x80\x02}", "not a readable adapter file"),
    "something behind": (b"\x80\x02}.}", "goes on behind its end"),
    "two things": (b"\x80\x02}}.", "goes on behind its end"),
    "an empty stack": (b"\x80\x02.", "not a readable adapter file"),
    "a number for a name": (b"\x80\x02}K\x01K\x01s.", "does not hold named tensors"),
    "no tensor": (b"\x80\x02}X\x01\x00\x00\x00aK\x01s.", "does not hold named tensors"),
    "a memo of nothing": (b"\x80\x02h\x07.", "not a readable adapter file"),
    "a long number": (b"\x80\x02\x8a\xff" + b"\xff" * 255 + b".", "instruction LONG1"),
    "a longer one": (b"\x80\x02L" + b"9" * 60_000 + b"L\n.", "not a readable adapter file"),
    "another protocol": (pickle.dumps({}, 4), "protocol 4"),
    "a frame": (b"\x80\x02\x95" + struct.pack("<Q", 2**62) + b"}.", "not a readable adapter file"),
    "INST": (b"\x80\x02(iposix\nsystem\n.", "instruction INST"),
    "OBJ": (b"\x80\x02(cposix\nsystem\no.", "names 'posix system'"),
    "NEWOBJ": (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "instruction NEWOBJ"),
    "attributes": (b"\x80\x02}}X\x09\x00\x00\x00__class__K\x01sb.", "sets attributes"),
    "half a character": (b"\x80\x02}X\x03\x00\x00\x00\xed\xa0\x80K\x01s.", "no Unicode"),
    "control characters": (b"\x80\x02c\x1b[31m\nx\n.", r"names '\\x1b\[31m x'"),
    "another kind of number": (pickle.dumps(torch.HalfStorage, 2), "expected 'FloatStorage'"),
}


@pytest.mark.parametrize(("program", "reason"), PROGRAMS.values(), ids=PROGRAMS.keys())
def test_tricks_are_refused_with_their_reason(program, reason):
    assert re.search(reason, refused(zipped(program)))
