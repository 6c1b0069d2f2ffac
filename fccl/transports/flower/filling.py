"""Filling a parcel at its site: the files that it leaves out come from the site's own directory, or from few bytes.

Loads neither torch nor Flower; `made` is loaded where there are few bytes to decode.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress

from fccl.errors import FcclError
from fccl.paths import CODED, ExchangePaths
from fccl.storage.reading import read_bounded
from fccl.transports.flower.contents import Content, is_adapter

MOST_BYTES = 2**31  # of one file


def filled(
    paths: ExchangePaths, files: Mapping[str, bytes], held: Mapping[str, Content]
) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """All files that are to be laid, those that were left out first, and the names of those that cannot be had.

    A content is taken wherever it lies: in a file of its name, in another adapter's, or in the parcel itself. Files in
    few bytes are read and not laid: the worker finds the whole ones.
    """
    carried = {text: each for text, each in files.items() if not text.endswith(CODED)}
    known = {Content.of(each): each for text, each in carried.items() if held and is_adapter(paths, text)}
    found: dict[str, bytes] = {}
    # a parcel has one round: a server that named more would have as many adapters made, each of the most bytes
    few = files if sum(text.startswith("global_") for text in held) == 1 else {}
    for text, content in sorted(held.items(), key=lambda item: not item[0].startswith("global_")):
        if content not in known:
            had = _there(paths, text, content) or _made(paths, text, content, few)
            known |= {} if had is None else {content: had}
        if content in known:
            found[text] = known[content]
    return {**found, **carried}, tuple(sorted(held.keys() - found.keys()))


def adapters_there(paths: ExchangePaths, length: int) -> Iterator[str]:
    """The names of the whole adapters of so many bytes that lie in the directory."""
    with suppress(OSError):
        for text in sorted(os.listdir(paths.root)):
            with suppress(OSError):
                if is_adapter(paths, text) and os.lstat(paths.root / text).st_size == length:
                    yield text


def _there(paths: ExchangePaths, text: str, content: Content) -> bytes | None:
    """A content from the directory; None where no file there has it."""
    for name in dict.fromkeys([text, *adapters_there(paths, content.length)]):
        with suppress(FcclError):
            found = read_bounded(paths.root / name, MOST_BYTES, content.length)
            if Content.of(found) == content:
                return bytes(found)
    return None


def _made(paths: ExchangePaths, text: str, content: Content, files: Mapping[str, bytes]) -> bytes | None:
    """A round's global adapter from the few bytes that came with its task; None where that does not come to it."""
    name = paths.name(text)
    if name is None or name.kind != "global_adapter" or name.round is None:
        return None
    coded, task = files.get(paths.coded_global(name.round).name), files.get(paths.task(name.round).name)
    if coded is None or task is None:
        return None
    try:
        from fccl.transports.flower.made import made  # loads torch

        return made(paths, coded, task, content)
    except Exception:  # whatever it is, the whole file will do
        return None
