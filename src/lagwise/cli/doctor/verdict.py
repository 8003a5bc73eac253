"""What the doctor says: a level, a topic, the node, what is so, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

CLUSTER = "cluster"
"""The subject of a verdict that is about no node alone."""


class Level(StrEnum):
    """How bad it is. The first alone makes the exit status 1."""

    FAULT = "fault"
    """Something does not work, or is not what the application relies on."""
    WARNING = "warning"
    """It works, and a foreseeable event would change that."""
    NOTE = "note"
    """Good to know; a choice that has its price."""
    OK = "ok"
    """Looked at, and in order."""

    @property
    def order(self) -> int:
        """The worst first."""
        return list(Level).index(self)


class Topic(StrEnum):
    """What was looked at; the words are stable, for scripts."""

    REACHABLE = "reachable"
    ROLE = "role"
    VERSION = "version"
    SYSTEM = "system"
    TIMELINE = "timeline"
    DATABASE = "database"
    STREAMING = "streaming"
    LAG = "lag"
    SLOTS = "slots"
    FEEDBACK = "hot-standby-feedback"
    DELAY = "max-standby-streaming-delay"
    COMMIT = "synchronous-commit"
    WAL_LEVEL = "wal-level"
    READ_ONLY = "default-transaction-read-only"
    PRIVILEGES = "privileges"
    POOLER = "pooler"
    ADDRESS = "address"
    CLOCK = "clock"
    ROUND_TRIP = "round-trip"
    UNLOGGED = "unlogged-tables"
    STATEMENTS = "statements"
    POOLS = "pools"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One finding.

    Attributes:
        level: how bad it is.
        topic: what was looked at.
        subject: the name of the node, or `CLUSTER`.
        what: what is so, a sentence.
        remedy: what to do, a sentence or several; empty where nothing is to be done.
    """

    level: Level
    topic: Topic
    subject: str
    what: str
    remedy: str = ""
