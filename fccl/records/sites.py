"""The record of a federation's sites: when each was last seen, and the bytes that were carried to it and back."""

from __future__ import annotations

from pydantic import Field

from fccl.specs import ClientId, Count, Round, RunId, Time
from fccl.specs.values import Value


class SiteRecord(Value):
    """One site as the server knows it."""

    client_id: ClientId
    online: bool = False  # as the SuperLink said when it was asked last
    seen: Time | None = None  # when it last was online, by the server's clock
    given_up: str = Field(default="", max_length=1000)  # the reason why the open round does not wait for it
    down: Count = 0  # bytes of the files in all messages to it
    up: Count = 0  # and in its answers


class CarriedRound(Value):
    """The bytes of one round's files, to all sites and back. What was carried twice counts twice."""

    round: Round  # the number of rounds for the end of the run
    down: Count = 0
    up: Count = 0


class SitesRecord(Value):
    """`sites.json`, replaced whole while a run over Flower is at work."""

    run_id: RunId
    time: Time  # when it was written, by the server's clock
    sites: tuple[SiteRecord, ...] = ()  # by client
    rounds: tuple[CarriedRound, ...] = ()  # in order
