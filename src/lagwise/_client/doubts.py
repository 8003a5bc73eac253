"""A doubt: a client may have written something whose position is unknown."""

import math
import time

from lagwise._decide.token import Position


def whole_seconds() -> int:
    """The epoch time rounded up: a token may live a second longer, not shorter."""
    return math.ceil(time.time())


def doubt(system: int = 0) -> Position:
    """A doubt about this cluster, or about every one, as of now."""
    return Position(system=system, in_doubt_at=whole_seconds())
