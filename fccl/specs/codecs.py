"""Names and settings of the codecs, the forms in which adapters travel: `fccl.adapters.codecs` has what they do."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fccl.specs.values import Value

CodecName = Literal["fp32", "fp16", "int8", "int4", "topk", "int3"]
CODECS: tuple[CodecName, ...] = ("fp32", "fp16", "int8", "int4", "topk", "int3")  # by their numbers in files


class CodecSpec(Value):
    """The form in which adapters travel: `fccl.adapters.codecs`. Under fp32 they are sent whole."""

    name: CodecName = "fp32"
    share: float = Field(default=0.5, gt=0, le=1)  # of the numbers that topk sends

    @property
    def is_whole(self) -> bool:
        """Whether adapters travel as they are, in files of their own."""
        return self.name == "fp32"

    @property
    def remembers(self) -> bool:
        """Whether a sender adds to its next change what this one left out."""
        return self.name in ("topk", "int3")


WHOLE = CodecSpec()
