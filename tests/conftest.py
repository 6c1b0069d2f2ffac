"""A tiny random GPT-2 with a tokenizer of its own, for tests that need a real model but no trained one."""

from __future__ import annotations

import gc
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import examples  # noqa: F401 - it chooses how many examples properties have, before any of them is read

if TYPE_CHECKING:
    from fccl.model.language_model import LanguageModel
    from fccl.records.manifest import Manifest

os.environ.setdefault(
    "OMP_WAIT_POLICY", "PASSIVE"
)  # before torch is there: two test processes that wait by spinning take each other's core
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the other cores have tests of their own; so runs start no processes

SENTENCES = (
    "### Instruction:\nWhat is the opposite of hot?\n\n### Response: The opposite of hot is cold.",
    "### Instruction:\nName a fruit that is red.\n\n### Response: An apple is red, and so is a cherry.",
    "### Instruction:\nAdd seven and five.\n\n### Response: Seven and five are twelve.",
    "Copy these words: the small bird sings in the old tree. I do not know. Go away, you fool.",
)


_KINDS = ("slow", "browser", "docker")
_WHOLE = re.compile(rf"^pytestmark = \[?pytest\.mark\.({'|'.join(_KINDS)})\b", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A file is not imported where none of its tests is wanted. Importing takes longer than most tests do: for the
    handful of slow ones all other files would be read, and lm-evaluation-harness for tests that are left out.
    """
    if collection_path.suffix != ".py":
        return None
    wanted, text = config.option.markexpr, collection_path.read_text(encoding="utf-8")
    whole = _WHOLE.search(text)
    left_out = bool(whole) and f"not {whole[1]}" in wanted
    return True if left_out or (wanted in _KINDS and f"mark.{wanted}" not in text) else None


def pytest_configure() -> None:
    """A warning that a library logs does not go to the terminal for want of a handler. pytest's own handlers are off:
    it hands each of the three parts of a test to every logger that torch keeps to itself, a hundred and fifty of them.
    """
    logging.getLogger().addHandler(logging.NullHandler())
    # A shell has its jobs in the background ignore Ctrl-C, and their children inherit that: no test could send it then.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Importing makes objects that stay: looking for garbage among them takes seconds and finds none."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """What the tests are made of stays to the end; the collector of garbage need not look at it again and again."""
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """What a processor without VNNI or AMX refuses is not tested there."""
    given = getattr(item, "callspec", None)
    values = [given.params.get(name) for name in ("precision", "less")] if given else []
    asked = any("int8" in value if isinstance(value, tuple) else value == "int8" for value in values)
    if asked or item.get_closest_marker("int8"):
        from fccl.errors import ModelError
        from fccl.model.precision import require_int8

        try:
            require_int8("int8")
        except ModelError as error:
            pytest.skip(str(error))


@pytest.fixture(scope="session", autouse=True)
def no_flush_to_the_disk() -> Iterator[None]:
    """A flush guards against a power cut, which no test makes; the tens of thousands of a suite take minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # a descriptor that is not open is an error still
        yield


@pytest.fixture(scope="session", autouse=True)
def one_picture_for_all_data() -> Iterator[None]:
    """Whoever prepares data draws its picture, which takes longer than the rest of a small preparation. Tests prepare
    data again and again, and have the first picture that was drawn; `tests/data/test_picture.py` draws each time.
    """
    preparing = sys.modules.get("fccl.data.prepare")  # where a test that was collected has imported it
    if preparing is None:
        yield
        return
    drawn: list[bytes] = []
    draw = preparing.draw_picture

    def draw_once(manifest: Manifest) -> bytes:
        drawn.extend([] if drawn else [draw(manifest)])
        return drawn[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparing, "draw_picture", draw_once)
        yield


@pytest.fixture(scope="session")
def tiny_model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random GPT2LMHeadModel (2 layers, width 32, context 128) and a byte-level BPE tokenizer."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-gpt2")
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(SENTENCES, vocab_size=400, special_tokens=["<|endoftext|>"], show_progress=False)
    end = "<|endoftext|>"
    PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, bos_token=end, eos_token=end, pad_token=end
    ).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=bpe.get_vocab_size(),
            n_layer=2,
            n_embd=32,
            n_head=2,
            n_positions=128,
            bos_token_id=0,
            eos_token_id=0,
            initializer_range=0.1,
        )
        GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_model_path: Path) -> LanguageModel:
    """The tiny model with a LoRA of rank 4 on every linear layer.

    Which adapter is loaded is up to the last test that loaded one.
    """
    from fccl.model.loading import load_model
    from fccl.specs import ModelSpec

    return load_model(
        ModelSpec(name=str(tiny_model_path), lora_r=4, lora_alpha=8.0, lora_targets="all-linear", max_length=128)
    )


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of three clients and two rounds of the built-in model: `data/` and `logs/`."""
    import fccl

    folder = tmp_path_factory.mktemp("small-run")
    fccl.FederatedRun(
        max_sft_examples=60, max_va_examples=30, fed_rounds=1, data_dir=folder / "data", log_dir=folder / "logs"
    ).train()
    return folder
