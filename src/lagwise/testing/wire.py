"""The state that all connections of a proxy share, and their counts."""

from __future__ import annotations

from collections import Counter


class Wire:
    """The state of the network before one server; connections read it and count into it, the proxy changes it.

    Attributes:
        latency: Seconds each message from the client is held back.
        counting: Whether messages are read at all.
        frozen: Everything is held back, both ways.
        swallowing: Every byte is lost.
        round_trips: ReadyForQuery messages seen after start-up: what the client had to wait for.
        connections: Connections that finished start-up.
        by_application: ``round_trips`` by the client's ``application_name`` (``""`` without one).
    """

    def __init__(self, *, counting: bool = True) -> None:
        self.latency = 0.0
        self.counting = counting
        self.frozen = False
        self.swallowing = False
        self.reset_counts()

    def reset_counts(self) -> None:
        """Count from zero again."""
        self.round_trips = 0
        self.connections = 0
        self.by_application: Counter[str] = Counter()

    def count(self, application: str, ready: int, connected: int) -> None:
        """Add what a connection saw: ``ready`` answers completed, ``connected`` start-ups."""
        self.round_trips += ready
        self.connections += connected
        if ready:
            self.by_application[application] += ready
