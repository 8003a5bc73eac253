"""The ledger: what commits and reads add to what a client has seen."""

from time import monotonic
from typing import Any

from lagwise._client.causality import Causality, Commit
from lagwise._client.doubts import doubt, whole_seconds
from lagwise._decide.events import PositionAsked
from lagwise._decide.token import Position
from lagwise._decide.view import Reading, Role
from lagwise._nodes.nodes import Nodes


class Ledger:
    """Writes down, for the client that a session serves, where its commits and its reads stand."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self.remembers_reads = nodes.policy.guarantee == "session"
        """Whether a client's reads count as seen."""

    def begin(self, node: str, seen: Causality) -> Commit:
        """A handle for the commit of a transaction that begins now; only PostgreSQL's commits need a token."""
        nodes = self._nodes
        system = nodes.monitor.view.system if nodes.pools[node].is_postgresql else None
        return seen.begin(system, nodes.policy.sticky_window)

    async def committed(self, node: str, commit: Commit, driver: Any) -> None:
        """Ask for the position of a COMMIT that succeeded on this driver's connection: a later position covers it."""
        reading, shared, began = None, False, monotonic()
        try:
            if (server := self._nodes.servers.get(node)) is not None:
                reading = await server.positions.after_commit(driver)
                shared = reading is not None and server.positions.shared
        finally:
            found = reading is not None and reading.role is Role.PRIMARY
            if found and reading is not None:
                commit.at(_position(reading))
            else:
                commit.unplaced()
            if (tell := self._nodes.watchers.told) is not None:
                tell(PositionAsked(node=node, found=found, seconds=monotonic() - began, shared=shared))

    def placed(self, node: str, commit: Commit, position: Position) -> None:
        """Take the position that the answer to COMMIT told."""
        commit.at(position)
        if (tell := self._nodes.watchers.told) is not None:
            tell(PositionAsked(node=node, found=True))

    async def has_read(self, node: str, seen: Causality) -> None:
        """Remember how much the client may have seen: what the node had replayed after the read."""
        if not self._nodes.is_open:
            return
        monitor, policy = self._nodes.monitor, self._nodes.policy
        now = monitor.clock()
        reading = await monitor.after(node, now, now + policy.probe_timeout)
        position = doubt(monitor.view.system) if reading is None else _position(reading)
        seen.saw(position, policy.sticky_window)
        self._nodes.watchers.will_issue(seen)

    def may_have_read(self, seen: Causality) -> None:
        """Put the client in doubt: it has read, and where that stands cannot be asked."""
        if self._nodes.is_open:
            seen.saw(doubt(self._nodes.view.system), self._nodes.policy.sticky_window)
            self._nodes.watchers.will_issue(seen)


def _position(reading: Reading) -> Position:
    return Position(system=reading.system, timeline=reading.timeline, lsn=reading.lsn, issued_at=whole_seconds())
