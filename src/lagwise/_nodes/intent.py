"""What a session is opened for, and what it asks of the nodes on behalf of its client."""

import time
from dataclasses import dataclass
from functools import cached_property

from lagwise._client.causality import Causality, known_systems
from lagwise._decide.route import Demand
from lagwise._decide.token import Position
from lagwise._decide.view import View
from lagwise.policy import Policy


def meet(before: View, now: View) -> None:
    """Know the cluster of this view: what a client brings of another one may be of ours, before it was moved.

    A cluster that belief has left is unknown again: its positions mean the primary until their window ends, and then
    nothing. Another Router of this process that is still there says so with its next reading.
    """
    if now.system != before.system:
        known_systems.discard(before.system)
    if now.identity.sure:
        known_systems.add(now.system)


@dataclass(frozen=True, kw_only=True)
class Intent:
    """What a session is opened for."""

    write: bool
    max_staleness: float | None = None
    primary: bool = False
    snapshot: bool = False

    @cached_property
    def plain(self) -> Demand:
        """What it asks on behalf of a client that has seen nothing."""
        return Demand(write=self.write, strong=self.primary, max_staleness=self.max_staleness)

    def demand(self, seen: Causality | None, policy: Policy, view: View) -> Demand:
        """What it asks of the nodes in this view, given what its client has seen.

        A token's floor depends on which cluster the view is of.
        """
        if seen is None or not (token := seen.token):
            return self.plain
        now, window = time.time(), policy.sticky_window
        floor = token.floor(view.system) or Position(system=view.system)
        strangers = (p for p in token if p.system not in known_systems)
        lost = any(p.in_doubt(window, now) or not p.expired(window, now) for p in strangers)
        return Demand(
            write=self.write,
            strong=self.primary,
            timeline=floor.timeline,
            floor=floor.lsn,
            expired=floor.expired(window, now),
            sticky=lost or floor.in_doubt(window, now),
            doubted=floor.in_doubt_at > 0,
            max_staleness=self.max_staleness,
        )
