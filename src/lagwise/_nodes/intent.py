"""What a session is opened for, and what it asks of the nodes on behalf of its client."""

import time
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

from lagwise._client import known
from lagwise._client.causality import Causality
from lagwise._decide.route import Demand, Reason
from lagwise._decide.token import Position
from lagwise._decide.view import View
from lagwise._pools.limiting import checked
from lagwise.policy import Policy

_OUTLIVED = 3600.0
"""Seconds after which the write of a promoted node is given up that no node here has heard of: cookies end, too."""


def register_cluster(before: View, now: View) -> None:
    """Register the cluster of this view as known. A position of an unknown cluster may be of ours, before it was moved.

    A cluster that is no longer believed to be ours is unknown again: its positions mean the primary until their window
    ends, and then nothing. Where another Router of this process uses it, that Router's next reading registers it again.
    """
    if now.system != before.system:
        known.systems.discard(before.system)
    if now.identity.sure:
        known.systems.add(now.system)


def forget_cluster(view: View) -> None:
    """Forget the cluster of this view, whose Router closes: as `register_cluster` does with one that is left."""
    known.systems.discard(view.system)


@dataclass(frozen=True, kw_only=True)
class Intent:
    """What a session is opened for."""

    write: bool
    max_staleness: float | None = None
    strong: Reason | None = None
    """Why it reads from the primary whatever replicas have: `STRONG`, `HELD_BACK`, or None."""
    snapshot: bool = False
    timeout: float | None = None
    """Seconds that each statement may take; None: what the driver is configured to allow."""
    sticky: bool = True
    """Whether what the session commits becomes part of what its client has seen."""

    @classmethod
    def of(
        cls,
        *,
        write: bool,
        max_staleness: float | None = None,
        primary: bool = False,
        snapshot: bool = False,
        timeout: float | None = None,
        sticky: bool = True,
    ) -> Self:
        """What a session with these options is opened for; `max_staleness` and `timeout` are in seconds.

        Raises:
            ValueError: `max_staleness` is negative, `timeout` not above 0, a write has options of reads, or a read
                has `sticky`.
        """
        timeout = checked(timeout)
        if write:
            if max_staleness is not None or primary or snapshot:
                raise ValueError(
                    "max_staleness, primary and snapshot are for db.read; a write session is on the primary"
                )
            return cls(write=True, timeout=timeout, sticky=sticky)
        if not sticky:
            raise ValueError("sticky is for db.write; a read makes no client sticky")
        if max_staleness is not None and not max_staleness >= 0:
            raise ValueError(f"max_staleness must be at least 0 seconds, not {max_staleness!r}")
        strong = Reason.STRONG if primary else None
        return cls(write=False, max_staleness=max_staleness, strong=strong, snapshot=snapshot, timeout=timeout)

    @cached_property
    def plain(self) -> Demand:
        """What the session asks for a client that has seen nothing."""
        return Demand(write=self.write, strong=self.strong, max_staleness=self.max_staleness)

    @cached_property
    def held_back(self) -> "Intent":
        """The same for a client whose reads are held back from replicas."""
        return replace(self, strong=Reason.HELD_BACK)

    def demand(self, seen: Causality | None, policy: Policy, view: View) -> Demand:
        """What the session asks of the nodes in this view, given what its client has seen.

        A token's floor depends on which cluster the view is of.
        """
        if seen is None or not (token := seen.token).positions:
            return self.plain
        now, window = time.time(), policy.sticky_window
        floor = token.floor(view.system) or Position(system=view.system)
        lost = False
        for position in token.positions:
            if position.system not in known.systems:
                lost = lost or position.in_doubt(window, now) or not position.expired(window, now)
        staleness, sticky = self.max_staleness, lost or floor.in_doubt(window, now)
        if token.crowded_until and token.in_crowd(window, now):
            # Replicas that have everything serve, and the primary otherwise, also where the policy keeps reads off it.
            staleness, sticky = 0.0, sticky or not policy.fall_back or policy.fall_back_limit is not None
        return Demand(
            write=self.write,
            strong=self.strong,
            timeline=floor.timeline,
            floor=floor.lsn,
            expired=(expired := floor.expired(window, now)),
            outlived=expired and floor.expired(max(_OUTLIVED, window), now),
            sticky=sticky,
            doubted=floor.in_doubt_at > 0 or token.crowded_until > 0,
            max_staleness=staleness,
        )

    def demand_once_open(self, seen: Causality, policy: Policy, view: View) -> Demand:
        """What the session asks of the node it is open on: only that it has what its client has seen since.

        How fresh it has to be was settled when the session was opened.
        """
        return replace(self.demand(seen, policy, view), max_staleness=None)
