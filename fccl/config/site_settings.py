"""The settings of clients that exist: named by the data, or at home with their own."""

from __future__ import annotations

from pydantic_settings import BaseSettings

from fccl.config.fields import knob
from fccl.specs import ClientColumn, SmallClients
from fccl.specs.personal import Personalize, PersonalSpec

USUAL_TEST_SHARE = 0.1  # of a client's own files


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
    own_data_clients: int = knob(
        "data",
        0,
        "so many of the clients, the last ones, bring their own data and declare how much; the others have shards",
        ge=0,
    )
    client_test_share: float = knob(
        "data",
        -1.0,
        "share of its data that a client keeps apart and scores base, its own and the global adapter on after each "
        "phase. Below 0: 0.1 of a client's own files, or with PERSONALIZE, else 0",
        ge=-1,
        le=0.5,
    )
    max_client_samples: int = knob(
        "contribution",
        0,
        "a client that declares its number of examples counts for at most so many; 0: ten times the median",
        ge=0,
    )

    personalize: Personalize = knob(
        "training",
        "off",
        "an adapter of its own for each client, which never leaves it: the global one trained further (finetune), or "
        "one trained beside it and pulled to it (ditto)",
    )
    ditto_lambda: float = knob(
        "training", 0.1, "how hard Ditto pulls it to the global adapter; 0: the client trains alone", ge=0
    )

    @property
    def personal_spec(self) -> PersonalSpec | None:
        """The clients' own adapters; None where there are none."""
        if self.personalize == "off":
            return None
        return PersonalSpec(kind=self.personalize, pull=self.ditto_lambda if self.personalize == "ditto" else 0.0)

    @property
    def some_declare(self) -> bool:
        """Whether there are clients that bring their own data."""
        return self.server_only or self.own_data_clients > 0

    @property
    def shard_test_share(self) -> float:
        """The share of a prepared shard that is kept apart: personal adapters are scored on it."""
        usual = 0.0 if self.personalize == "off" else USUAL_TEST_SHARE
        return 0.0 if self.server_only else usual if self.client_test_share < 0 else self.client_test_share

    @property
    def file_test_share(self) -> float:
        """The share of a client's own files that it keeps apart."""
        return USUAL_TEST_SHARE if self.client_test_share < 0 else self.client_test_share

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
