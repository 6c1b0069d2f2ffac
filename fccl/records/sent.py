"""The bytes that a round's adapters take on their way."""

from __future__ import annotations

from collections.abc import Collection

from pydantic import Field

from fccl.codecs import CodecName
from fccl.values import Value


class SentBytes(Value):
    """The bytes of adapters that a round takes on the way, as UPDATE_CODEC writes them."""

    codec: CodecName
    up: int = Field(ge=0)  # all updates that arrived, with control variates
    down: int = Field(ge=0)  # the global adapter, to each client that has the one of the round before
    whole: int = Field(ge=0)  # and to each that has not
    aggregate_sha256: str = ""  # of the adapter before the codec has rounded it; empty under fp32, which does not

    def down_to(self, clients: Collection[int], before: Collection[int] | None) -> int:
        """The bytes of the global adapter to these clients. `before` are those that answered the round before; None in
        the first of a run, whose adapter is drawn from its seed.
        """
        without = 0 if before is None else len(set(clients) - set(before))
        return self.down * (len(clients) - without) + self.whole * without
