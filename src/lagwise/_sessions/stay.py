"""Where a session is, and why."""

from dataclasses import dataclass

from lagwise._decide.route import Route
from lagwise._pools.engine import RoutedEngine


@dataclass(frozen=True, slots=True)
class Stay:
    """Where a session is, and why."""

    route: Route
    engine: RoutedEngine
