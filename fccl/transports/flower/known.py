"""`Known`: the adapters that each client's site has, as far as its answers have borne it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fccl.paths import ExchangePaths
from fccl.transports.flower.contents import Content, is_adapter, stays


@dataclass(frozen=True)
class Known:
    """By client and node, and in memory alone: a client's new node, a node that was away and a server that starts again
    begin with nothing.

    It may be wrong: a site's directory can be emptied. Then the site says what is missing, and is sent all of it.
    """

    paths: ExchangePaths
    _sites: dict[int, tuple[int, Mapping[str, Content]]] = field(default_factory=dict)

    def of(self, client_id: int, node: int) -> Mapping[str, Content]:
        """The files of a client's site by name, if this is its node."""
        known_node, files = self._sites.get(client_id, (node, {}))
        return files if known_node == node else {}

    def answered(self, client_id: int, node: int, laid: Mapping[str, Content]) -> None:
        """Note that a site has answered, with these files before it."""
        before = self.of(client_id, node)
        kept = {
            text: each
            for text, each in before.items()
            if (name := self.paths.name(text)) is not None and stays(self.paths, name, laid)
        }
        adapters = {text: each for text, each in laid.items() if is_adapter(self.paths, text)}
        self._sites[client_id] = node, {**kept, **adapters}

    def forget(self, client_id: int) -> None:
        """Assume nothing of a client's site."""
        self._sites.pop(client_id, None)

    def only(self, places: Mapping[int, int]) -> None:
        """Forget every site whose node is not the one that is online for its client now."""
        for client_id, (node, _) in list(self._sites.items()):
            if places.get(client_id) != node:
                del self._sites[client_id]
