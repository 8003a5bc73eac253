"""The log as a watcher of events."""

import logging
from dataclasses import fields

from lagwise._decide.events import (
    BeliefContradicted,
    ClusterChanged,
    ClusterUnconfirmed,
    Event,
    NodeChanged,
    NodeRefusesConnections,
    NodeUnreachable,
    Promoted,
    TimelineAbandoned,
    TwoPrimaries,
)
from lagwise._decide.news import DatabaseChanged
from lagwise._say import say

# The level and the event word for each event of nodes. Events of single sessions are not logged.
_WORDS: dict[type[Event], tuple[int, str]] = {
    NodeChanged: (logging.INFO, "node-changed"),
    Promoted: (logging.INFO, "promoted"),
    NodeUnreachable: (logging.WARNING, "node-unreachable"),
    NodeRefusesConnections: (logging.WARNING, "node-refuses-connections"),
    TwoPrimaries: (logging.ERROR, "two-primaries"),
    ClusterUnconfirmed: (logging.ERROR, "cluster-unconfirmed"),
    ClusterChanged: (logging.ERROR, "cluster-changed"),
    TimelineAbandoned: (logging.ERROR, "timeline-abandoned"),
    DatabaseChanged: (logging.WARNING, "database-changed"),
    BeliefContradicted: (logging.ERROR, "belief-contradicted"),
}


def log_event(event: Event) -> None:
    """Log what happened to a node: the word is the message, the event's attributes are its `extra`."""
    level, word = _WORDS[type(event)]
    say(level, word, **{each.name: getattr(event, each.name) for each in fields(event)})
