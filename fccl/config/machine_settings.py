"""The settings of a run's work on its machine: threads, processes, and clients in one batch."""

from __future__ import annotations

from pydantic import field_validator
from pydantic_settings import BaseSettings

from fccl.config.fields import WHOLE_NUMBER, knob

AUTO = "auto"  # of BASE_PRECISION, PROMPT_FORMAT and CLIENTS_AT_ONCE
MOST_AT_ONCE = 64  # clients in one batch: its LoRA products grow with the square of their number


class MachineSettings(BaseSettings):
    """The settings that spread the clients' training over cores or a GPU."""

    threads: int = knob(
        "run",
        0,
        "CPU threads of a training; 0: all cores, shared by processes. Same bytes need the same number",
        ge=0,
        le=1024,
    )
    client_processes: int = knob(
        "training",
        0,
        "processes in which clients of `fccl run` train side by side; 0: as many as cores and memory allow, one a GPU",
        ge=0,
        le=64,
    )
    clients_at_once: str = knob(
        "training",
        AUTO,
        "clients of `fccl run` that train in one batch, each as if alone: auto is 8 on a GPU (engine gpt2), 1 on a CPU",
        min_length=1,
    )

    @field_validator("clients_at_once", mode="before")
    @classmethod
    def _counts_clients(cls, value: object) -> str:
        text = str(value).strip()  # 4 and "4" alike
        if text != AUTO and not (WHOLE_NUMBER.fullmatch(text) and 1 <= int(text) <= MOST_AT_ONCE):
            raise ValueError(f"must be auto, or a whole number from 1 to {MOST_AT_ONCE}")
        return text

    @property
    def at_once(self) -> int:
        """The number of clients that train in one batch. A run decides before what auto is."""
        return 1 if self.clients_at_once == AUTO else int(self.clients_at_once)
