"""The end of a block that several tasks may be in at once."""

from contextvars import ContextVar, Token
from typing import Any


def leave(variable: ContextVar[Any], entered: list[Token[Any]]) -> None:
    """Take the latest of these tokens that this task got from `variable.set()`, and reset the variable to it.

    The tasks may leave in any order, and each resets what it set itself. Raises `ValueError` where it set none.
    """
    for place in reversed(range(len(entered))):
        try:
            variable.reset(entered[place])
        except ValueError:  # set in another task
            if place == 0:
                raise
        else:
            del entered[place]
            return
