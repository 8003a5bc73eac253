"""Parses SQL text with PostgreSQL's own parser (libpg_query), within bounds of size, depth and time."""

import re
from importlib import import_module
from threading import Lock, Thread, stack_size
from typing import Any

pgparse: Any
try:
    pgparse = import_module("pgparse")  # it has no types
except ImportError:
    pgparse = None  # no wheel for this platform: nothing can be read, everything counts as unseen

LIMIT = 16_384
"""Characters, after `folded`: the longest text that is read. One that long takes some 15 ms."""
_SHALLOW = 2_048
"""Characters that cannot nest so deep that the parser, which recurses in C, needs more stack than any thread has."""
_STACK = 16 << 20
"""Bytes of stack for what may nest deeper: address space, which is used only if needed."""
_starting = Lock()

_LIST = re.compile(r"(\$\d+)((?:::[A-Z][A-Z ]*)?)(?:, \$\d+\2(?=[,)]))+")
_OPERATORS = re.compile(r"[-+*/<>=~!@#%^&|`?]{64,}")


def folded(sql: str) -> str:
    """A text with every list of parameters of one type cut down to its first: they say the same, and may be thousands.

    >>> folded("SELECT 1 WHERE id IN ($1::INTEGER, $2::INTEGER, $3::INTEGER) AND x = $4")
    'SELECT 1 WHERE id IN ($1::INTEGER) AND x = $4'
    """
    return _LIST.sub(r"\1\2", sql)


def parse(sql: str) -> list[Any] | None:
    """The statements of a text, as libpg_query's JSON; None for what is not PostgreSQL's, or too long, or too deep.

    The parser's C code takes a NUL for the end, and half a surrogate pair cannot be encoded.
    """
    if pgparse is None or len(sql) > LIMIT or "\0" in sql or any(map(_is_slow, _OPERATORS.findall(sql))):
        return None
    return _statements(sql) if len(sql) <= _SHALLOW else _on_a_stack_of_its_own(sql)


def _is_slow(run: str) -> bool:
    """Whether PostgreSQL's scanner would read this run of operator characters again and again, in quadratic time.

    That happens where comments begin inside comments and where plus and minus stand in a row; not in the ruler lines
    and boxes that people draw in comments.
    """
    return "+" in run or run.count("/*") > 1


def _statements(sql: str) -> list[Any] | None:
    try:
        found: list[Any] = pgparse.parse(sql)
    except (pgparse.PGQueryError, RecursionError, UnicodeError, ValueError):
        return None
    return found


def _on_a_stack_of_its_own(sql: str) -> list[Any] | None:
    """As `_statements`, in a thread whose stack is large enough for the deepest text."""
    found: list[list[Any] | None] = []
    thread = Thread(target=lambda: found.append(_statements(sql)), name="lagwise-parse", daemon=True)
    try:
        with _starting:
            before = stack_size(_STACK)
            try:
                thread.start()
            finally:
                stack_size(before)
    except (RuntimeError, ValueError):  # the platform has no such stacks, or no thread can start
        return None
    thread.join()
    return found[0] if found else None
