"""What a session is opened for, and what it asks of the nodes on behalf of its client."""

import time
from dataclasses import dataclass
from functools import cached_property

from lagwise._client.causality import Causality, known_systems
from lagwise._decide.route import Request
from lagwise._decide.token import Position
from lagwise._decide.view import View
from lagwise.policy import Policy


@dataclass(frozen=True, kw_only=True)
class Intent:
    """What a session is opened for."""

    write: bool
    max_staleness: float | None = None
    primary: bool = False
    snapshot: bool = False

    @cached_property
    def plain(self) -> Request:
        """What it asks on behalf of a client that has seen nothing."""
        return Request(write=self.write, strong=self.primary, max_staleness=self.max_staleness)

    def request(self, seen: Causality | None, policy: Policy, view: View) -> Request:
        """What it asks of the nodes in this view, given what its client has seen.

        A token's floor depends on which cluster the view is of.
        """
        if seen is None or not (token := seen.token):
            return self.plain
        now, window = time.time(), policy.sticky_window
        floor = token.floor(view.system) or Position(system=view.system)
        strangers = (p for p in token if p.system not in known_systems)
        lost = any(p.in_doubt(window, now) or not p.expired(window, now) for p in strangers)
        return Request(
            write=self.write,
            strong=self.primary,
            timeline=floor.timeline,
            floor=floor.lsn,
            expired=floor.expired(window, now),
            sticky=lost or floor.in_doubt(window, now),
            max_staleness=self.max_staleness,
        )
