"""What `Router(on_event=...)` is called with: frozen values, one class for each kind of event."""

from lagwise._decide.events import (
    BeliefContradicted,
    ClusterChanged,
    ClusterUnconfirmed,
    Event,
    NodeChanged,
    NodeRefusesConnections,
    NodeUnreachable,
    PositionAsked,
    Promoted,
    Refused,
    Retried,
    Routed,
    TimelineAbandoned,
    TokenIgnored,
    TwoPrimaries,
    Watcher,
)

__all__ = [
    "BeliefContradicted",
    "ClusterChanged",
    "ClusterUnconfirmed",
    "Event",
    "NodeChanged",
    "NodeRefusesConnections",
    "NodeUnreachable",
    "PositionAsked",
    "Promoted",
    "Refused",
    "Retried",
    "Routed",
    "TimelineAbandoned",
    "TokenIgnored",
    "TwoPrimaries",
    "Watcher",
]
