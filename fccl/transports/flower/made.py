"""A round's global adapter at a site, made of its few bytes and an adapter that lies there. Loads torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from fccl.adapters.adapter import Adapter, adapter_from_bytes
from fccl.adapters.short import is_drawn, read_short
from fccl.errors import FcclError
from fccl.paths import ExchangePaths
from fccl.storage.reading import parse, read_bounded
from fccl.transports.exchange.wire import TaskFile
from fccl.transports.flower.contents import MOST_DRAWN_BYTES, Content
from fccl.transports.flower.filling import adapters_there


def made(paths: ExchangePaths, coded: bytes, task: bytes, content: Content) -> bytes | None:
    """The whole file of the adapter that these bytes are the change of, in the codec of the task; None where it has
    another content.

    A base lies there with the length of the file that is made, and is read one at a time. So no more memory is taken
    than by files that the server has sent whole. A drawn adapter has no base: its length is bounded. Raises what
    reading raises.
    """
    work = parse(task, TaskFile, "the task").work
    if work is None or (is_drawn(coded) and content.length > MOST_DRAWN_BYTES):
        return None
    bases = _adapters(paths, content.length)
    found = read_short(bytearray(coded), bases, work.train.codec, content.length, "the coded adapter").to_bytes()
    return found if Content.of(found) == content else None


def _adapters(paths: ExchangePaths, length: int) -> Iterator[Adapter]:
    for text in adapters_there(paths, length):
        with suppress(FcclError):
            yield adapter_from_bytes(read_bounded(paths.root / text, length, length), text)
