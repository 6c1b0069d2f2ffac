"""What the data preparation is to do, as a value. The apps build it from the settings; the manifest keeps it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fccl.specs import PartitionSpec, Phase, Value

SYNTHETIC = "synthetic"
NoiseKind = Literal["shuffled", "flipped", "duplicated"]


class DataSpec(Value):
    """From sources to shards. Two equal specs over the same sources give the same bytes."""

    sft_data: str = Field(min_length=1)
    va_data: str = Field(min_length=1)  # a source, or `SYNTHETIC`: pairs made from the SFT data
    max_sft_examples: int = Field(default=0, ge=0)  # 0 takes all
    max_va_examples: int = Field(default=0, ge=0)
    test_examples: int = Field(ge=1)  # at most so many of each kind, and never more than a fifth
    validation_examples: int = Field(ge=1)  # likewise, never more than a tenth
    skip_bad_rows: bool = False
    partition: PartitionSpec
    noisy_clients: tuple[int, ...] = ()
    noise_kind: NoiseKind = "shuffled"

    @property
    def seed(self) -> int:
        return self.partition.seed

    def source(self, phase: Phase) -> str:
        return self.sft_data if phase == "sft" else self.va_data

    def max_examples(self, phase: Phase) -> int:
        return self.max_sft_examples if phase == "sft" else self.max_va_examples
