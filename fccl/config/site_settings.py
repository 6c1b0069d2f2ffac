"""The settings of clients that exist: named by the data, or at home with their own."""

from __future__ import annotations

from pydantic_settings import BaseSettings

from fccl.config.fields import knob
from fccl.specs import ClientColumn, SmallClients


class SiteSettings(BaseSettings):
    """The settings that say who the clients are, where the data knows it."""

    client_column: str = knob(
        "data",
        "",
        "the column that names a row's client: a client for each name, and NUM_CLIENTS follows; empty: rows are dealt "
        "by a draw",
    )
    min_client_examples: int = knob(
        "data", 1, "a client with fewer training examples, of both kinds together, is small", ge=1
    )
    small_clients: SmallClients = knob("data", "merge", "small clients are merged until they are not, or left out")
    anonymize_clients: bool = knob("data", False, "the manifest does not say the clients' names")
    server_only: bool = knob(
        "data", False, "prepare the server's splits alone: every client brings its own data and declares how much"
    )
    max_client_samples: int = knob(
        "contribution",
        0,
        "a client that declares its number of examples counts for at most so many; 0: ten times the median",
        ge=0,
    )

    @property
    def named_clients(self) -> ClientColumn | None:
        """The column that names clients, with what becomes of small ones; None where rows are dealt by a draw."""
        if not self.client_column:
            return None
        return ClientColumn(
            column=self.client_column,
            min_examples=self.min_client_examples,
            small=self.small_clients,
            anonymize=self.anonymize_clients,
        )
