"""The nodes of a Router that lets only a share of its clients read from replicas."""

import os
import secrets
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from lagwise._client.causality import Causality
from lagwise._decide.identity import Terms
from lagwise._decide.offload import BUCKETS, bucket_of, held_back
from lagwise._decide.route import Demand, Reason, Route, serves
from lagwise._decide.shadow import Shadow
from lagwise._nodes.intent import Intent
from lagwise._nodes.nodes import Nodes
from lagwise._nodes.shadowing import Shadowing
from lagwise._nodes.watchers import Watchers
from lagwise._pools.pools import Pools
from lagwise.policy import Policy


class OffloadingNodes(Nodes):
    """Nodes whose replicas serve a share of the clients; the reads of the others are held back on the primary.

    Where the share is 1, sessions call `Nodes` itself: nothing is asked of a client.
    """

    def __init__(self, pools: Mapping[str, Pools], policy: Policy, watchers: Watchers, terms: Terms) -> None:
        super().__init__(pools, policy, watchers, terms)
        self._shadowing = Shadowing(policy, watchers)
        self.let_in(policy.offload)

    @property
    def offload(self) -> float:
        """The share of clients whose reads may go to replicas, from the next session on."""
        return self.policy.offload

    def let_in(self, share: float) -> None:
        """Let this share of the clients read from replicas. Raises `ValueError` unless it is from 0 to 1."""
        self.policy = replace(self.policy, offload=share)
        if share < 1:
            self.choose_at_once = self._choose_at_once_or_hold  # type: ignore[method-assign]
            self.choose = self._choose_or_hold  # type: ignore[method-assign]
        else:
            vars(self).pop("choose_at_once", None)
            vars(self).pop("choose", None)

    @property
    def shadow(self) -> Shadow:
        """What would have become of the reads that were held back."""
        return self._shadowing.counts

    async def stop(self) -> None:
        """As `Nodes.stop`; no read is followed any longer."""
        try:
            await self._shadowing.stop()  # what is followed would be woken by the end of the monitor, and counted
            await super().stop()
        finally:  # from here on no session is opened, and so none is followed
            await self._shadowing.stop()

    def serves(self, *, write: bool) -> bool:
        """As `Nodes.serves`; where every client is held back, a read needs the primary."""
        if write or self.offload > 0:
            return super().serves(write=write)
        monitor = self.monitor
        return serves(monitor.view, self.policy, Demand(strong=Reason.HELD_BACK), monitor.clock(), 0)

    def _choose_at_once_or_hold(self, intent: Intent, seen: Causality | None) -> Route | None:
        if not self._holds(intent, seen):
            return super().choose_at_once(intent, seen)
        chosen = super().choose_at_once(intent.held_back, seen)
        if chosen is not None:
            self._follow(intent, seen)
        return chosen

    async def _choose_or_hold(
        self, intent: Intent, seen: Causality | None, *, avoid: frozenset[str] = frozenset(), holder: object
    ) -> Route:
        if not self._holds(intent, seen):
            return await super().choose(intent, seen, avoid=avoid, holder=holder)
        chosen = await super().choose(intent.held_back, seen, avoid=avoid, holder=holder)
        self._follow(intent, seen)
        return chosen

    def _holds(self, intent: Intent, seen: Causality | None) -> bool:
        if intent.write or intent.strong or self.view.alone:
            return False
        return self.offload <= 0 or held_back(bucket_for(seen), self.offload)

    def _follow(self, intent: Intent, seen: Causality | None) -> None:
        monitor = self.monitor
        self._shadowing.follow(monitor, intent.demand(seen, self.policy, monitor.view))


def bucket_for(seen: Causality | None) -> int:
    """The bucket of the client that a session serves.

    That of the first principal that was named; else that of the request; else that of this process: a job or a script
    outside of any request is the process's own.
    """
    if seen is not None:
        requests = [each.request for each in seen.carriers() if each.request is not None]
        for request in requests:
            if request.principals is not None and (name := request.principals.first) is not None:
                return bucket_of(name)
        if requests:
            return requests[0].find_bucket().number
    return _of_process(os.getpid())


@lru_cache(maxsize=1)
def _of_process(_: int) -> int:
    return secrets.randbelow(BUCKETS)  # drawn anew after a fork: each worker process is a client of its own
