"""`NothingHeld`: the base of what is entered and holds nothing. It loads no torch, so the bridge of Flower can too."""

from __future__ import annotations

from types import TracebackType
from typing import Self


class NothingHeld:
    """Base of what holds nothing: to enter and to leave it does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None
