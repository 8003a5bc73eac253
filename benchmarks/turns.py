"""The order in which contestants take their turns."""

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def order(of: Sequence[T], turn: int) -> list[T]:
    """Each item once, in another order each turn, and in the same orders in each run.

    The contestant after another process, or after a slow one, finds a cold processor; that must not be always the same.

    >>> sorted(order("abc", 1)), order("abc", 1) == order("abc", 1)
    (['a', 'b', 'c'], True)
    """
    return random.Random(turn).sample(of, len(of))
