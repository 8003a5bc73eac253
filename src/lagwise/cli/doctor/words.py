"""Numbers and names as the doctor writes them."""

from __future__ import annotations

from collections.abc import Iterable

_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_SHORTEST = 3  # letters: a host of one or two would make any name unreadable, and tells nothing


def size(count: int) -> str:
    """Bytes, in the unit that suits.

    >>> size(0), size(40 * 1024 * 1024)
    ('0 bytes', '40 MB')
    """
    value, unit = float(count), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if value >= 10 or not unit else f"{value:.1f} {_UNITS[unit]}"


def seconds(value: float) -> str:
    """A duration.

    >>> seconds(0.00042), seconds(3.21), seconds(7200)
    ('0.4 ms', '3.2 s', '2 h')
    """
    if abs(value) < 0.1:
        return f"{round(value * 1000, 1):g} ms"
    if abs(value) < 120:
        return f"{round(value, 1):g} s"
    return f"{value / 60:.0f} min" if abs(value) < 7200 else f"{value / 3600:.0f} h"


def count(number: int, noun: str) -> str:
    """A number with its noun.

    >>> count(1, "process"), count(3, "table")
    ('1 process', '3 tables')
    """
    return f"{number} {noun}{'' if number == 1 else 'es' if noun.endswith('s') else 's'}"


def listed(names: Iterable[str]) -> str:
    """Names in a row.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def version(number: int) -> str:
    """A version of PostgreSQL from its number.

    >>> version(150018)
    '15.18'
    """
    return f"{number // 10000}.{number % 10000}"


def shown(name: str, hidden: Iterable[str]) -> str:
    r"""A name that a server has told, without hosts and passwords that are part of it, and what a terminal obeys.

    >>> shown("db-7_internal_slot", ["db-7_internal"])
    '..._slot'
    >>> shown("a" + chr(27) + "[2J", [])
    'a\\x1b[2J'
    """
    for secret in sorted(hidden, key=len, reverse=True):
        if len(secret) >= _SHORTEST:
            name = name.replace(secret, "...")
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in name)
