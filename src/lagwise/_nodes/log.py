"""The log as a watcher of events, and how an application's watcher is called."""

import logging
from dataclasses import fields

from lagwise._client.causality import Causality
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
    TokenIgnored,
    TwoPrimaries,
    Watcher,
)
from lagwise._nodes.say import say

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
    BeliefContradicted: (logging.ERROR, "belief-contradicted"),
}


def log_event(event: Event) -> None:
    """Log what happened to a node: the word is the message, the event's attributes are its `extra`."""
    level, word = _WORDS[type(event)]
    say(level, word, **{each.name: getattr(event, each.name) for each in fields(event)})


def logging_too(watcher: Watcher | None) -> Watcher:
    """A watcher that calls the log, and then the application's watcher."""
    if watcher is None:
        return log_event

    def both(event: Event) -> None:
        log_event(event)
        watcher(event)

    return both


def tell_ignored(seen: Causality | None, watcher: Watcher) -> None:
    """Report, once, the texts that a client brought and that are no tokens: the middleware knows no Router."""
    if seen is not None and seen.ignored:
        ignored, seen.ignored = seen.ignored, ()
        for why in ignored:
            watcher(TokenIgnored(why=why))


def watched_by(watcher: Watcher | None) -> Watcher | None:
    """The application's watcher, guarded: an error in it is logged, and not raised."""
    if watcher is None:
        return None

    def guarded(event: Event) -> None:
        try:
            watcher(event)
        except Exception as error:
            say(logging.ERROR, "watcher-failed", watched=type(event).__name__, error=type(error).__name__)

    return guarded
