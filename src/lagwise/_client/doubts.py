"""Doubts as of now, and the time that tokens carry."""

import math
import time

from lagwise._decide.token import Position


def whole_seconds() -> int:
    """The epoch time rounded up: a token may live a second longer, not shorter."""
    return math.ceil(time.time())


def doubt(system: int = 0) -> Position:
    """A doubt about this cluster, or about every one: from now on its client reads from the primary, for the window."""
    return Position(system=system, in_doubt_at=whole_seconds())
