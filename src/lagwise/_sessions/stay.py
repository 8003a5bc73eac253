"""Where a session is, and how far it has come."""

from dataclasses import dataclass
from enum import Enum, auto

from lagwise._decide.route import Route
from lagwise._pools.engine import RoutedEngine


class Phase(Enum):
    """How far a lease has come."""

    NEW = auto()
    """No node is chosen yet."""
    PLACED = auto()
    """The node is chosen. A statement that fails may run on another one: nothing was handed out."""
    ENGAGED = auto()
    """Something was handed out: the session stays, because the caller may have acted on it."""


@dataclass(frozen=True, slots=True)
class Stay:
    """Where a session is, and why."""

    route: Route
    engine: RoutedEngine
