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
    TokenBrought,
    TokenIgnored,
    TokenIssued,
    TwoPrimaries,
    Watcher,
)
from lagwise._decide.news import DatabaseChanged
from lagwise._decide.shadow import HeldBack

__all__ = [
    "BeliefContradicted",
    "ClusterChanged",
    "ClusterUnconfirmed",
    "DatabaseChanged",
    "Event",
    "HeldBack",
    "NodeChanged",
    "NodeRefusesConnections",
    "NodeUnreachable",
    "PositionAsked",
    "Promoted",
    "Refused",
    "Retried",
    "Routed",
    "TimelineAbandoned",
    "TokenBrought",
    "TokenIgnored",
    "TokenIssued",
    "TwoPrimaries",
    "Watcher",
]
