"""How often a test repeats itself: enough to find what it is there to find, or, when asked, many times that."""

import os
from typing import TypeVar

T = TypeVar("T")

FULL = bool(os.environ.get("LAGWISE_TEST_FULL"))


def enough(few: T, full: T) -> T:
    """`full` where LAGWISE_TEST_FULL is set. What a test asserts is the same for both."""
    return full if FULL else few
