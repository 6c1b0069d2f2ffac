"""Numbers, names and times with their bounds, as files of other processes may hold them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

Phase = Literal["sft", "va"]
PHASES: tuple[Phase, ...] = ("sft", "va")

# What another process may have written has bounds, so that whoever adds, formats or draws it need not ask.
Round = Annotated[int, Field(ge=0, le=999_999_999)]  # nine digits, as in file names
ClientId = Annotated[int, Field(ge=0, le=999_999_999)]
RunId = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Count = Annotated[int, Field(ge=0, le=10**15)]  # exact as a float too
Samples = Annotated[int, Field(ge=1, le=10**15)]
Rank = Annotated[int, Field(ge=1, le=1024)]  # of LoRA factors
Threads = Annotated[int, Field(ge=0, le=1024)]
Loss = Annotated[float, Field(ge=0, le=1e15)]
SignedLoss = Annotated[float, Field(ge=-1e15, le=1e15)]  # of any preference loss: one has no lower end
Rate = Annotated[float, Field(ge=0, le=1e15)]  # a second
Seconds = Annotated[float, Field(ge=0, le=1e9)]  # 31 years
Time = Annotated[float, Field(ge=0, le=9e9)]  # seconds since 1970, to 2255; pandas counts nanoseconds in 64 bits
