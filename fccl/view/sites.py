"""The sites of a run over Flower: whether each is there, and what was carried to it and back."""

from __future__ import annotations

from fccl.display import words
from fccl.display.plain_text import one_line
from fccl.display.tables import Table
from fccl.records.sites import CarriedRound, SiteRecord
from fccl.view.status import run_status
from fccl.view.values import RunView, Standing

ONLINE_S = 30.0  # a site that was seen no longer ago is online
MOST_ROWS = 400
_AT_WORK: frozenset[Standing] = frozenset({"running", "silent"})
_NOTE = (
    "Online: its SuperNode says that it is there. A SuperLink notices a minute late that one is cut off. "
    "Bytes of the files in all messages, to the site and back."
)


def sites_table(view: RunView, now: float) -> Table | None:
    """A row for each site at the time `now`; None for a run that has none. Those that are not there come first where
    there are many."""
    if view.sites is None:
        return None
    at_work = run_status(view, now).standing in _AT_WORK
    sites = [(each, _age(view, each, now)) for each in view.sites.sites]
    if len(sites) > MOST_ROWS:
        sites.sort(key=lambda site: (_is_online(*site), site[0].client_id))
    rows = tuple(_row(site, age, at_work) for site, age in sites[:MOST_ROWS])
    more = f" {MOST_ROWS} of {len(sites):,} sites." if len(sites) > MOST_ROWS else ""
    head = ("client", "SuperNode", "last seen", "carried down", "carried up")
    return Table("Sites", head, rows, _NOTE + more, words=frozenset({1}))


def site_state(site: SiteRecord, age_s: float | None, at_work: bool) -> str:
    """The state of a site with its symbol: "✓ online", "✕ cut off". Nobody watches it where the run is not at work."""
    if site.given_up and at_work:
        return f"✕ given up: {one_line(site.given_up)}"
    if site.seen is None or age_s is None:
        return "○ not seen yet" if at_work else "○ never seen"
    if _is_online(site, age_s):
        return "✓ online"
    return "✕ cut off" if at_work or not site.online else "– online at the end"


def carried(view: RunView) -> dict[int, CarriedRound]:
    """The bytes that Flower has carried, by round; empty for a run that it did not carry."""
    return {} if view.sites is None else {each.round: each for each in view.sites.rounds}


def _row(site: SiteRecord, age_s: float | None, at_work: bool) -> tuple[str, ...]:
    seen = words.ago(age_s) if age_s is None or age_s > ONLINE_S else "now"
    state = site_state(site, age_s, at_work)
    return str(site.client_id), state, seen, words.size(site.down), words.size(site.up)


def _is_online(site: SiteRecord, age_s: float | None) -> bool:
    return site.online and age_s is not None and age_s <= ONLINE_S


def _age(view: RunView, site: SiteRecord, now: float) -> float | None:
    """Seconds since a site was seen: the file's age by the reader's clock, and what the server's says beside it."""
    if view.sites is None or site.seen is None:
        return None
    return max(0.0, now - view.sites_heard) + max(0.0, view.sites.time - site.seen)
